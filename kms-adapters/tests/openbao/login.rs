//! Tokens that end, logins, and Kubernetes service accounts.

use crate::bao::Bao;
use crate::common::server::{Reply, Server};
use crate::common::{refused, unwrap, unwrap_traced, wrap};
use data_encoding::BASE64URL_NOPAD;
use keyfold::{ErrorKind, KmsErrorKind};
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::Duration;

/// An AppRole for `key` and the options by which a KEK uses it.
fn approle(bao: &Bao, key: &str, settings: Value) -> (String, String) {
    let (mount, policy) = (bao.name(), bao.policy(key));
    bao.post(&format!("sys/auth/{mount}"), json!({ "type": "approle" }));
    let mut role = json!({ "token_policies": [policy] });
    role.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
    bao.post(&format!("auth/{mount}/role/svc"), role);
    let role_id = bao.call("GET", &format!("auth/{mount}/role/svc/role-id"), json!(null)).1["data"]["role_id"].clone();
    let secret_id = bao.post(&format!("auth/{mount}/role/svc/secret-id"), json!({}))["data"]["secret_id"].clone();
    let file = bao.file(&format!("{}\n", secret_id.as_str().expect("text")));
    let options = format!(
        "auth=approle&auth_mount={mount}&role_id={}&secret_id_file={}",
        role_id.as_str().expect("text"),
        file.display()
    );
    (mount, options)
}

// Failure A20
#[test]
fn least_privilege_is_enough_and_a_revoked_token_is_replaced_once() {
    let Some(bao) = Bao::given() else { return };
    let key = bao.derived_key();
    let (mount, options) = approle(&bao, &key, json!({ "token_ttl": "1h" }));
    let kek = bao.kek_with(&key, &options);
    let wrapped = wrap(&kek).expect("wrapped with a login");
    let (result, requests) = unwrap_traced(&kek, &wrapped);
    assert!(result.is_ok());
    assert_eq!(requests, 1, "logged in once");
    // All tokens of the role, as an administrator does it who fears that one has leaked.
    bao.post(&format!("sys/leases/revoke-prefix/auth/{mount}"), json!({}));
    let (result, requests) = unwrap_traced(&kek, &wrapped);
    assert!(result.is_ok());
    assert_eq!(requests, 3, "refused, logged in, done");
    // The role goes, too.
    bao.call("DELETE", &format!("auth/{mount}/role/svc"), json!(null));
    bao.post(&format!("sys/leases/revoke-prefix/auth/{mount}"), json!({}));
    let (result, requests) = unwrap_traced(&kek, &wrapped);
    assert_eq!(refused(result).kind(), ErrorKind::Kms(KmsErrorKind::Credentials));
    assert_eq!(requests, 2, "refused, not logged in, nothing more");
}

#[test]
fn tokens_are_renewed_before_they_end_and_replaced_when_they_cannot_be() {
    let Some(bao) = Bao::given() else { return };
    let key = bao.derived_key();
    // Renewable for ever: never seen to end.
    let (_, options) = approle(&bao, &key, json!({ "token_ttl": "6s", "token_period": "6s" }));
    let kek = bao.kek_with(&key, &options);
    let wrapped = wrap(&kek).expect("wrapped");
    let mut requests = Vec::new();
    for _ in 0..2 {
        sleep(Duration::from_millis(4_200));
        let (result, count) = unwrap_traced(&kek, &wrapped);
        assert!(result.is_ok());
        requests.push(count);
    }
    assert_eq!(requests, [2, 2], "a renewal and the request");
    // At most 2 seconds, then a login.
    let (_, options) = approle(&bao, &key, json!({ "token_ttl": "2s", "token_max_ttl": "2s" }));
    let kek = bao.kek_with(&key, &options);
    assert!(unwrap(&kek, &wrapped).is_ok());
    sleep(Duration::from_millis(2_500));
    let (result, count) = unwrap_traced(&kek, &wrapped);
    assert!(result.is_ok());
    assert_eq!(count, 3, "not renewed, logged in, done");
}

/// Covers KC-36.
#[test]
fn a_token_file_is_read_again_when_it_changes() {
    let Some(bao) = Bao::given() else { return };
    let key = bao.derived_key();
    let settings = json!({ "policies": [bao.policy(&key)], "ttl": "1h" });
    let first = bao.new_token(settings.clone());
    let file = bao.file(&first);
    let kek = bao.kek_with(&key, &format!("token_file={}", file.display()));
    let wrapped = wrap(&kek).expect("wrapped");
    bao.post("auth/token/revoke", json!({ "token": first }));
    assert_eq!(refused(unwrap(&kek, &wrapped)).kind(), ErrorKind::Kms(KmsErrorKind::Credentials));
    std::fs::write(&file, bao.new_token(settings)).expect("written");
    assert!(unwrap(&kek, &wrapped).is_ok());
    std::fs::remove_file(&file).expect("removed");
    let (result, requests) = unwrap_traced(&kek, &wrapped);
    assert_eq!(refused(result).kind(), ErrorKind::Kms(KmsErrorKind::Credentials));
    assert_eq!(requests, 0);
}

/// OpenBao asks the cluster whether the token of the service account is good; the cluster is ours.
#[test]
fn a_pod_logs_in_with_its_service_account() {
    let Some(bao) = Bao::given() else { return };
    let key = bao.derived_key();
    let cluster = Server::start(|request| {
        assert!(request.line.contains("/apis/authentication.k8s.io/v1/tokenreviews"), "{}", request.line);
        let user = json!({ "username": "system:serviceaccount:clinic:intake", "uid": "1", "groups": ["system:serviceaccounts"] });
        let status = json!({ "authenticated": true, "user": user });
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status });
        Reply::json(201, review.to_string())
    });
    let mount = bao.name();
    bao.post(&format!("sys/auth/{mount}"), json!({ "type": "kubernetes" }));
    let reviewer = json!({
        "kubernetes_host": format!("http://{}", cluster.address), "token_reviewer_jwt": jwt("reviewer"),
        "disable_local_ca_jwt": true, "kubernetes_ca_cert": std::fs::read_to_string(&bao.ca).expect("a CA"), "disable_iss_validation": true,
    });
    bao.post(&format!("auth/{mount}/config"), reviewer);
    let role = json!({
        "bound_service_account_names": ["intake"], "bound_service_account_namespaces": ["clinic"],
        "token_policies": [bao.policy(&key)], "token_ttl": "1h",
    });
    bao.post(&format!("auth/{mount}/role/intake"), role);
    let token = bao.file(&jwt("intake"));
    let kek =
        bao.kek_with(&key, &format!("auth=kubernetes&auth_mount={mount}&role=intake&jwt_file={}", token.display()));
    let wrapped = wrap(&kek).expect("wrapped");
    assert!(unwrap(&kek, &wrapped).is_ok());
    assert_eq!(cluster.seen().len(), 1, "logged in once");
}

/// A token of the shape that Kubernetes makes; nobody here checks its signature.
fn jwt(account: &str) -> String {
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": format!("system:serviceaccount:clinic:{account}"),
        "kubernetes.io/serviceaccount/namespace": "clinic", "kubernetes.io/serviceaccount/service-account.name": account,
        "kubernetes.io/serviceaccount/service-account.uid": "1", "kubernetes.io/serviceaccount/secret.name": "s",
    });
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}.{}", part(json!({ "alg": "RS256", "typ": "JWT" })), part(claims), BASE64URL_NOPAD.encode(&[7; 256]))
}

#[test]
fn namespaces_are_kept_apart() {
    let Some(bao) = Bao::given() else { return };
    let namespace = bao.name();
    bao.post(&format!("sys/namespaces/{namespace}"), json!({}));
    let inside = |path: &str, body| bao.call_in(Some(&namespace), "POST", path, body);
    assert_eq!(inside("sys/mounts/transit", json!({ "type": "transit" })).0, 204);
    let key = bao.derived_key();
    assert_eq!(inside(&format!("transit/keys/{key}"), json!({ "derived": true })).0, 200);
    let token = format!("token_file={}", bao.file(&bao.token).display());
    let (outer, inner) = (bao.kek_with(&key, &token), bao.kek_with(&key, &format!("{token}&namespace={namespace}")));
    let wrapped = wrap(&inner).expect("wrapped");
    assert!(unwrap(&inner, &wrapped).is_ok());
    assert_eq!(refused(unwrap(&outer, &wrapped)).kind(), ErrorKind::Kms(KmsErrorKind::InvalidCiphertext));
}
