//! TLS files reach both buses, and wrong ones are refused with their names.

#![cfg(feature = "tls")]

use psrpc::ErrorCode;
use psrpc_bus_url::{TlsFiles, connect_with_tls};
use psrpc_servers::{Certificates, Server, ServerTls};
use psrpc_tokio::TokioRuntime;

async fn refusal(url: &str, files: TlsFiles) -> String {
    let refused = connect_with_tls(url, TokioRuntime::current().unwrap(), files).await;
    let error = refused.err().expect("the connection must be refused");
    assert_eq!(*error.code(), ErrorCode::InvalidArgument, "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_files_connect_to_servers_that_require_a_client_certificate() {
    let certificates = Certificates::new();
    let tls = ServerTls::new(&certificates).require_client_certificate();
    let files = TlsFiles::new().ca(certificates.authority().path());
    let client = certificates.client();
    let with_client = files.clone().client_certificate(client.certificate().path(), client.key().path());
    for server in [Server::redis_tls(&tls, &[]), Server::nats_tls(&tls, &[])] {
        let runtime = || TokioRuntime::current().unwrap();
        let connected = connect_with_tls(&server.url(), runtime(), with_client.clone()).await;
        assert!(connected.is_ok(), "{}: {:?}", server.url(), connected.err());
        let refused = connect_with_tls(&server.url(), runtime(), files.clone()).await;
        assert!(refused.is_err(), "{}: without a client certificate", server.url());
    }
}

#[tokio::test]
async fn a_file_that_is_missing_or_of_the_wrong_kind_is_named() {
    let certificates = Certificates::new();
    let client = certificates.client();
    let (certificate, key) = (client.certificate().path(), client.key().path());
    for url in ["rediss://127.0.0.1:1", "tls://127.0.0.1:1"] {
        let text = refusal(url, TlsFiles::new().ca("nowhere/ca.pem")).await;
        assert!(text.contains("TLS: nowhere/ca.pem: No such file"), "{text}");
        for (files, file, kind) in [
            (TlsFiles::new().ca(key), key, "certificate"),
            (TlsFiles::new().client_certificate(key, key), key, "certificate"),
            (TlsFiles::new().client_certificate(certificate, certificate), certificate, "private key"),
        ] {
            let text = refusal(url, files).await;
            assert!(text.contains(&format!("TLS: {}: not a {kind} in PEM format", file.display())), "{text}");
        }
    }
}

#[tokio::test]
async fn tls_files_for_a_url_without_tls_are_refused() {
    let certificates = Certificates::new();
    let files = TlsFiles::new().ca(certificates.authority().path());
    for url in ["local:", "redis://127.0.0.1:1", "nats://127.0.0.1:1"] {
        let text = refusal(url, files.clone()).await;
        assert!(text.contains("TLS"), "{text}");
    }
    // Without files, any URL will do.
    assert!(connect_with_tls("local:", TokioRuntime::current().unwrap(), TlsFiles::new()).await.is_ok());
}
