//! Drills (DESIGN K11): proof that a KEK alone, or all KEKs but one, bring every key back, and how long that takes.

use super::audited::Audit;
use super::configured::Configured;
use super::trust::Origin;
use super::{KekUse, Keyring};
use crate::audit::{AuditAction, AuditEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyClass;
use crate::kms::KekAlias;
use crate::policy::FieldPolicy;
use crate::record::{KeyState, Record};
use crate::rotation::RotationPolicy;
use crate::value::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records that are read from the store at once.
const PAGE: usize = 1000;
/// The field of the probe value.
const PROBE_FIELD: &str = "keyfold.drill";
const PROBE: Value<'static> = Value::Text("keyfold drill");

/// Which KEKs a drill is about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Drill {
    /// Each configured KEK by itself, but for retired ones.
    #[default]
    EachAlone,
    /// This one by itself.
    Only(KekAlias),
    /// All but this one and retired ones, together: as if its region or provider were gone. Proves that one of them opens each
    /// key, and not which.
    Without(KekAlias),
}

/// What became of one part of a drill.
#[derive(Clone, Debug)]
pub struct DrillReport {
    /// The KEKs that were asked, and no other.
    pub keks: Vec<KekAlias>,
    /// Whether everything opened that should.
    pub outcome: Result<()>,
    /// Roots that opened.
    pub roots: u64,
    /// Keys of isolated scopes that opened: the one that seals in each.
    pub isolated: u64,
    /// Keys of isolated scopes that these KEKs do not wrap, so that they were left out.
    pub elsewhere: u64,
    /// From nothing in memory to the first value that opened; `None` where none did, or the KEKs wrap no root.
    pub first_value: Option<Duration>,
    /// Until everything had opened, or the first failure.
    pub took: Duration,
}

impl Keyring {
    /// Proves that KEKs bring back everything by themselves: with nothing in memory, every root that is trusted, the key that
    /// seals in each isolated scope, and a value that was sealed under the keyring's current data key.
    ///
    /// A drill of one KEK leaves out the isolated scopes that it does not wrap; one without a KEK fails for a scope that
    /// no other wraps. A KEK for recovery is asked as any other; a break-glass one in recovery mode with a reason alone,
    /// and fails otherwise. Takes one request per root and per isolated key and part; makes no key, and each part is an
    /// audit event.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): no such KEK is configured, or it is the only one.
    /// - [`Store`](ErrorKind::Store): the database failed. - Those of the audit sink.
    ///
    /// What does not open is no error of the drill: it is the outcome of its part.
    pub async fn drill(&self, drill: &Drill) -> Result<Vec<DrillReport>> {
        self.check_open()?;
        let configured = self.configured();
        let all: BTreeSet<KekAlias> = configured.keks.keys().cloned().collect();
        let retired = &configured.keyring.keks.retired;
        let known =
            |alias: &KekAlias| match all.contains(alias) {
                true => Ok(()),
                false => Err(Error::new(ErrorKind::Configuration, "no KEK of this name is configured")
                    .with_detail(alias.as_str())),
            };
        let parts: Vec<BTreeSet<KekAlias>> = match drill {
            Drill::EachAlone => all.difference(retired).map(|alias| BTreeSet::from([alias.clone()])).collect(),
            Drill::Only(alias) => known(alias).map(|()| vec![BTreeSet::from([alias.clone()])])?,
            Drill::Without(alias) => {
                known(alias)?;
                let rest: BTreeSet<_> = all.difference(retired).filter(|other| *other != alias).cloned().collect();
                if rest.iter().all(|alias| self.configured().keyring.scope_keks.contains(alias)) {
                    return Err(Error::new(ErrorKind::Configuration, "without the KEK none is left that wraps roots")
                        .with_detail(alias.as_str()));
                }
                vec![rest]
            }
        };
        // Sealed as usual if that is possible now; a part can seal its own where the usual KEKs are away.
        let probe = self.view(&all).seal_probe().await.ok();
        let mut reports = Vec::with_capacity(parts.len());
        for keks in parts {
            let report = self.drill_part(keks, matches!(drill, Drill::Without(_)), probe.as_deref()).await?;
            let mut event = AuditEvent::new(AuditAction::Drill).outcome(&report.outcome);
            if let [alias] = &report.keks[..] {
                event = event.kek(alias);
            }
            event.latency = Some(report.took);
            let names = report.keks.iter().map(KekAlias::as_str).collect::<Vec<_>>().join(" ");
            self.audit(event.detail("keks", names).detail("roots", report.roots).detail("isolated", report.isolated))?;
            reports.push(report);
        }
        Ok(reports)
    }

    /// A keyring with nothing in memory that asks the KEKs `keks` alone, and makes no key.
    fn view(&self, keks: &BTreeSet<KekAlias>) -> Self {
        let configured = self.configured();
        let mut config = configured.keyring.clone();
        // Which KEK wraps the next key is not the question here.
        config.isolated = BTreeMap::new();
        config.rotation = RotationPolicy { data_age: None, root_age: None, data_messages: None, ..config.rotation };
        config.keks.uses.retain(|_, use_| *use_ == KekUse::BreakGlass);
        let _ = config.policy.add(FieldPolicy::randomized(PROBE_FIELD));
        let keks = configured.keks.iter().filter(|(alias, _)| keks.contains(alias));
        let keks = keks.map(|(alias, kek)| (alias.clone(), kek.clone())).collect();
        let view = Self::with(
            Configured { keyring: config, keks, observed: Vec::new() },
            self.inner.store.clone(),
            self.inner.high_water.clone(),
            self.inner.clock.clone(),
            Audit::new(self.inner.clock.clone()),
        );
        // A new keyring has no sink yet.
        let _ = view.set_audit(Arc::new(self.inner.audit.clone()));
        view
    }

    async fn seal_probe(&self) -> Result<Vec<u8>> {
        self.field(PROBE_FIELD)?.encryptor().await?.encrypt(PROBE, None)
    }

    async fn open_probe(&self, sealed: &[u8]) -> Result<()> {
        let decryptor = self.field(PROBE_FIELD)?.decryptor().await?;
        decryptor.load_keys(&[sealed][..]).await?;
        let opened = decryptor.decrypt(sealed, None)?;
        if opened.value() == PROBE { Ok(()) } else { Err(ErrorKind::DecryptionFailed.into()) }
    }

    async fn drill_part(&self, keks: BTreeSet<KekAlias>, without: bool, probe: Option<&[u8]>) -> Result<DrillReport> {
        let wraps_roots = |alias: &KekAlias| !self.configured().keyring.scope_keks.contains(alias);
        let opens_roots = keks.iter().any(wraps_roots);
        // KEKs of scopes alone wrap no root, which must be opened by others then.
        let asked =
            if opens_roots { keks.clone() } else { keks.iter().cloned().chain(self.root_keks().into_keys()).collect() };
        let view = self.view(&asked);
        let began = Instant::now();
        let mut report = DrillReport {
            keks: keks.iter().cloned().collect(),
            outcome: Ok(()),
            roots: 0,
            isolated: 0,
            elsewhere: 0,
            first_value: None,
            took: Duration::ZERO,
        };
        let outcome = async {
            self.check_askable(&keks)?;
            if opens_roots {
                self.check_wraps(&keks).await?;
                match probe {
                    Some(sealed) => view.open_probe(sealed).await?,
                    None => view.open_probe(&view.seal_probe().await?).await?,
                }
                report.first_value = Some(began.elapsed());
            }
            view.open_everything(&keks, opens_roots, without, &mut report).await
        }
        .await;
        view.close();
        report.took = began.elapsed();
        report.outcome = match outcome {
            // Of these nobody could say which KEK is to blame.
            Err(error) if error.kind() == ErrorKind::Store => return Err(error),
            outcome => outcome,
        };
        Ok(report)
    }

    /// Refuses break-glass KEKs without a reason, where there are no others to ask.
    fn check_askable(&self, keks: &BTreeSet<KekAlias>) -> Result<()> {
        let configured = self.configured();
        let policy = &configured.keyring.keks;
        let may_be_asked = |alias: &KekAlias| policy.use_of(alias) != KekUse::BreakGlass || policy.allows(alias);
        if keks.iter().any(may_be_asked) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::PolicyRefused,
            "a break-glass KEK is asked for a reason alone, and was not tried: --recovery=REASON",
        ))
    }

    /// Refuses where a root has no wrap by any of `keks`.
    async fn check_wraps(&self, keks: &BTreeSet<KekAlias>) -> Result<()> {
        let roots = self.roots_in_use().await?;
        let has_wrap = |root: &&Record| root.kek_aliases().any(|alias| keks.contains(alias));
        let mut in_service = roots.iter().filter(in_service);
        let Some(lacking) = in_service.clone().find(|root| !has_wrap(root)) else { return Ok(()) };
        let what = if in_service.any(|root| has_wrap(&root)) {
            "a root has no wrap by the KEK yet: run keys repair"
        } else {
            "the KEK wraps nothing yet: run keys repair"
        };
        Err(Error::new(ErrorKind::Configuration, what).with_detail(format!("root {}", lacking.key_id())))
    }

    /// Opens every root in service, if these KEKs wrap roots, and the key that seals in each isolated scope.
    async fn open_everything(
        &self,
        keks: &BTreeSet<KekAlias>,
        roots: bool,
        without: bool,
        report: &mut DrillReport,
    ) -> Result<()> {
        if roots {
            for root in self.roots_in_use().await?.iter().filter(in_service) {
                self.voucher(root).await?.verify(root)?;
                report.roots += 1;
            }
        }
        let mut after = None;
        loop {
            let page = self.inner.store.list(self.lineage(), after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key_id());
            let sealing = |record: &&Record| {
                record.class() != KeyClass::Root && record.is_isolated() && record.state() == KeyState::Active
            };
            for record in page.iter().filter(sealing) {
                if !without && !record.kek_aliases().any(|alias| keks.contains(alias)) {
                    report.elsewhere += 1;
                    continue;
                }
                self.verify(record).await?;
                self.ask_keks(record, Origin::Store, Some(keks)).await?;
                report.isolated += 1;
            }
        }
    }
}

/// Whether a root still opens keys, or may be taken back.
fn in_service(record: &&Record) -> bool {
    record.state().may_open() || record.state() == KeyState::DestroyPending
}
