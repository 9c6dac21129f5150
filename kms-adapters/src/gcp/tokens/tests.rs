//! The metadata server and the token service of `gcloud`'s users, whose addresses nothing configures.

#[path = "../../../tests/common/server.rs"]
#[allow(dead_code, reason = "the tests of the adapters use the rest")]
mod server;

use super::*;
use server::{Reply, Server};

fn tokens(auth: GcpAuth, server: &Server) -> Tokens {
    let address: &'static str = format!("http://{}", server.address).leak();
    let login = Arc::new(Http::new(None).expect("a client"));
    Tokens { places: Places { metadata: address, users: address }, ..Tokens::new(auth, login) }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

#[test]
fn the_metadata_server_gives_a_token_that_is_kept_until_its_end_or_refusal() {
    let server =
        Server::always(Reply::json(200, r#"{"access_token":"ya29.m","expires_in":3599,"token_type":"Bearer"}"#));
    let tokens = tokens(GcpAuth::Metadata, &server);
    block_on(async {
        for _ in 0..3 {
            assert_eq!(tokens.token().await.expect("a token").expose(), "ya29.m");
        }
        assert_eq!(server.seen().len(), 1);
        tokens.refused(&SecretText::new("an older one")).await;
        let token = tokens.token().await.expect("a token");
        assert_eq!(server.seen().len(), 1, "that of another thread was not refused");
        tokens.refused(&token).await;
        tokens.token().await.expect("a token");
    });
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].line.starts_with("GET /computeMetadata/v1/instance/service-accounts/default/token "));
    assert!(seen[0].headers.to_ascii_lowercase().contains("metadata-flavor: google"));
}

#[test]
fn a_token_about_to_end_is_replaced() {
    let server = Server::always(Reply::json(200, r#"{"access_token":"ya29.short","expires_in":60}"#));
    let tokens = tokens(GcpAuth::Metadata, &server);
    block_on(async {
        tokens.token().await.expect("a token");
        tokens.token().await.expect("a token");
    });
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_life_without_end_is_not_believed() {
    let answer = format!(r#"{{"access_token":"ya29.long","expires_in":{}}}"#, u64::MAX);
    let tokens = tokens(GcpAuth::Metadata, &Server::always(Reply::json(200, answer)));
    block_on(tokens.fetch()).map(|token| assert!(token.replace_at <= Instant::now() + MAX_LIFE)).expect("a token");
}

#[test]
fn a_user_of_gcloud_sends_the_refresh_token() {
    let server = Server::always(Reply::json(200, r#"{"access_token":"ya29.u","expires_in":3599}"#));
    let file = tempfile::NamedTempFile::new().expect("a file");
    let login = r#"{"client_id":"id","client_secret":"s&t","refresh_token":"1//r","type":"authorized_user"}"#;
    std::fs::write(file.path(), login).expect("written");
    let request = user(file.path(), &format!("http://{}/token", server.address)).expect("a request");
    let http = Http::new(None).expect("a client");
    let status = block_on(http.send(request, None)).map(|answer| answer.status);
    assert_eq!(status.expect("an answer"), 200);
    let sent = &server.seen()[0];
    assert_eq!(sent.body, "grant_type=refresh_token&client_id=id&client_secret=s%26t&refresh_token=1%2F%2Fr");
}
