//! A keyring in a folder, and what its configuration says of KEKs.

use crate::common::World;
use crate::services::Service;
use keyfold::KeyClass;
use std::fs;

/// A keyring that trusts a KEK in a file, as `keyfold init` makes it, whose configuration is written anew with other KEKs.
pub(crate) struct Ring {
    pub(crate) world: World,
    /// The configuration without any KEK.
    head: String,
}

/// What `keyfold init` calls its KEK.
const FIRST: &str = "[keks.local]\nuri = \"local:local.kek\"\n";

impl Ring {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let text = fs::read_to_string(world.config()).expect("the configuration");
        let head = text.replace(FIRST, "");
        assert_ne!(head, text, "the section of the first KEK is {text}");
        Self { world, head }
    }

    /// Has the configuration say `sections` of KEKs and of nothing else.
    pub(crate) fn configure(&self, sections: &str) {
        fs::write(self.world.config(), format!("{}\n{sections}", self.head)).expect("written");
    }

    /// The KEK of `service` takes the place of the first one, by command. The URI of the KEK.
    pub(crate) fn move_to(&self, service: Service) -> String {
        let uri = service.new_key(&self.world.keys());
        let section = section(service, &uri);
        self.configure(&format!("{FIRST}retired = true\n{section}"));
        self.world.succeeds(&["keys", "rewrap", "--drop-kek", "local"]);
        self.configure(&section);
        fs::remove_file(self.world.keys().join("local.kek")).expect("removed");
        uri
    }

    /// By which version of its only KEK the root is wrapped.
    pub(crate) fn kek_version(&self) -> String {
        let keyring = keyfold_open::open(&self.world.config(), &[]).expect("it opens");
        let records = pollster::block_on(keyring.list(None, 100)).expect("records");
        let root = records.iter().find(|info| info.record.class() == KeyClass::Root).expect("a root");
        let version = root.record.kek_wraps().next().map(|(_, wrapped)| wrapped.kek_version.clone());
        version.expect("a wrap")
    }
}

pub(crate) fn section(service: Service, uri: &str) -> String {
    format!("[keks.{}]\nuri = \"{uri}\"\n", service.alias())
}
