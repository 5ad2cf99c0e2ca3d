//! What belongs to the gRPC door alone: health, reflection, error details, time, an ordinary client's manners.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::time::Duration;

use support::Server;
use tandem::pb::{self, kv_service_client::KvServiceClient};
use tokio_stream::StreamExt as _;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

async fn channel(server: &Server) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_serving_and_then_not() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut health = HealthClient::new(channel(&server).await);
    for name in ["", "tandem.v1.KvService"] {
        let answer = health.check(HealthCheckRequest { service: name.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{name:?}");
    }
    let unknown = health.check(HealthCheckRequest { service: "no.such".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let watched = HealthCheckRequest { service: String::new() };
    let mut changes = health.watch(watched).await.unwrap().into_inner();
    assert_eq!(changes.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.signal("TERM");
    assert_eq!(changes.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((changes, health));
    let mut server = server;
    assert_eq!(server.exit_code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_serves_the_public_schema_in_both_versions_and_no_storage() {
    use tonic_reflection::pb::{v1, v1alpha};
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let channel = channel(&server).await;

    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let ask = |message| v1::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    use v1::server_reflection_request::MessageRequest as Ask;
    let questions = [
        Ask::ListServices(String::new()),
        Ask::FileContainingSymbol("tandem.v1.KvService".into()),
        Ask::FileContainingSymbol("google.rpc.ErrorInfo".into()),
        Ask::FileContainingSymbol("grpc.health.v1.Health".into()),
        Ask::FileContainingSymbol("tandem.storage.v1.LogRecord".into()),
    ];
    let mut answers = Vec::new();
    for question in questions {
        let asked = tokio_stream::once(ask(question));
        let mut stream = client.server_reflection_info(asked).await.unwrap().into_inner();
        answers.push(stream.next().await.unwrap().ok().and_then(|answer| answer.message_response));
    }
    use v1::server_reflection_response::MessageResponse as Told;
    let Some(Told::ListServicesResponse(services)) = &answers[0] else { panic!("{:?}", answers[0]) };
    let mut names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.contains(&"tandem.v1.KvService") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("storage")));
    for known in &answers[1..4] {
        assert!(matches!(known, Some(Told::FileDescriptorResponse(_))), "{known:?}");
    }
    assert!(!matches!(answers[4], Some(Told::FileDescriptorResponse(_))), "storage stays out");

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let asked = tokio_stream::once(v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
    });
    let mut stream = client.server_reflection_info(asked).await.unwrap().into_inner();
    assert!(stream.next().await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_carry_the_details_that_fit_them() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut client = KvServiceClient::new(channel(&server).await);
    let long = pb::PutRequest { key: vec![b'k'; 1_025].into(), ..Default::default() };
    let status = client.put(long).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "key");
    assert_eq!(details.error_info().unwrap().metadata["limit"], "1024");
    assert!(status.metadata().contains_key("kv-trace-id"));
    let revision = pb::Condition { kind: Some(pb::condition::Kind::Revision(7)) };
    let failed = pb::PutRequest { key: "a".into(), conditions: vec![revision], ..Default::default() };
    let status = client.put(failed).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(details.precondition_failure().unwrap().violations[0].r#type, "CONDITION_FAILED");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut traced = tonic::Request::new(pb::GetRequest { key: "nothing".into(), metadata_only: false });
    traced.metadata_mut().insert("traceparent", format!("00-{trace}-00f067aa0ba902b7-01").parse().unwrap());
    assert_eq!(client.get(traced).await.unwrap_err().metadata().get("kv-trace-id").unwrap(), trace);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_share_a_connection_within_its_limit() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__STREAMS_PER_CONNECTION", "4")]);
    let client = KvServiceClient::new(channel(&server).await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let mut client = client.clone();
        calls.spawn(async move {
            // A client that has not read the limit yet may pass it: those streams are refused untouched, to be retried.
            loop {
                let key = format!("key-{number}").into();
                match client.put(pb::PutRequest { key, value: "x".into(), ..Default::default() }).await {
                    Err(refused) if refused.code() == Code::Unavailable => {}
                    answer => return answer,
                }
            }
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_call_and_says_what_became_of_the_write() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__REQUEST_TIMEOUT", "1ms")]);
    let mut client = KvServiceClient::new(channel(&server).await);
    let mut expired = 0;
    for number in 0..200 {
        let key: bytes::Bytes = format!("key-{number}").into();
        let value = vec![b'x'; 500_000];
        let put = pb::PutRequest { key: key.clone(), value: value.into(), ..Default::default() };
        let Err(status) = client.put(put).await else { continue };
        let info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str()), (Code::DeadlineExceeded, "DEADLINE"));
        if info.metadata["outcome"] == "NOT_APPLIED" {
            let found = client.get(pb::GetRequest { key, metadata_only: true }).await;
            assert_eq!(found.unwrap_err().code(), Code::NotFound, "it was said not to have happened");
        }
        expired += 1;
    }
    println!("{expired} of 200 writes ran out of time");
    tokio::time::timeout(Duration::from_secs(30), async { drop(client) }).await.unwrap();
}
