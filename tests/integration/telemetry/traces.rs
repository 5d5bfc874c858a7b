//! Traces: what a service sends to a collector of OpenTelemetry's own protocol.
//!
//! Does not test the exporter's retries.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use permcached::transport::proto::{CheckRequest, permission_service_client::PermissionServiceClient};
use tokio::{net::TcpListener, task::spawn_blocking};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Endpoint};

use crate::{
    fleet::{FILE, SCHEMA, USER, id, shared_file},
    support::{
        command::{Serving, schema_file},
        servers::mongo,
        service::{PATIENCE, resource, subject},
    },
};

/// What a collector has received: the attributes and the spans of each resource.
type Sent = Arc<Mutex<Vec<(Vec<KeyValue>, Vec<Span>)>>>;

struct Collector(Sent);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans).collect();
            self.0.lock().unwrap().push((attributes, spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, Sent) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, sent) = (listener.local_addr().unwrap(), Sent::default());
    let service = TraceServiceServer::new(Collector(Arc::clone(&sent)));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, sent)
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// The caller's trace, and its own span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_spans_a_call_down_to_the_database() {
    let (collector, sent) = collector().await;
    let database = mongo().database().await;
    for (name, documents) in shared_file() {
        database.collection::<bson::Document>(name).insert_many(documents).await.unwrap();
    }
    let (_directory, schema) = schema_file(SCHEMA);
    let (uri, endpoint) = (mongo().uri(), format!("http://{collector}"));
    let name = database.name().to_owned();
    let serving = spawn_blocking(move || {
        let variables = [
            ("MONGODB_URI", uri.as_str()),
            ("MONGODB_DATABASE", &name),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("RUST_LOG", "info"),
        ];
        Serving::start_with(&["--schema", &schema], &variables)
    })
    .await
    .unwrap();
    let channel = Endpoint::from_shared(serving.url()).unwrap().timeout(PATIENCE).connect().await.unwrap();
    let check = CheckRequest {
        subject: subject(&format!("user:{}", id(USER).to_hex())),
        permission: "read".to_owned(),
        resource: resource(&format!("file:{}", id(FILE).to_hex())),
        consistency: None,
        dependencies: false,
    };
    let mut request = Request::new(check);
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{CALLER}-01").parse().unwrap());
    PermissionServiceClient::new(channel).check(request).await.unwrap();
    // The service sends the last spans when it ends.
    serving.signal("TERM");
    assert_eq!(spawn_blocking(|| serving.exit_code()).await.unwrap(), Some(0));

    let sent = sent.lock().unwrap();
    assert_eq!(attribute(&sent[0].0, "service.name"), "permcached");
    let of_trace = sent.iter().flat_map(|(_, spans)| spans).filter(|span| hex(&span.trace_id) == TRACE);
    let spans: Vec<&Span> = of_trace.collect();
    let called = |name: &str| spans.iter().filter(|span| span.name == name).copied().collect::<Vec<_>>();
    let calls = called("permcached.v1.PermissionService/Check");
    let [call] = calls[..] else { panic!("{spans:#?}") };
    assert_eq!(hex(&call.parent_span_id), CALLER);
    let of_call = ["rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"];
    let of_call = of_call.map(|key| attribute(&call.attributes, key));
    assert_eq!(of_call, ["grpc", "permcached.v1.PermissionService", "Check", "0"]);
    let rounds = called("round");
    assert!(!rounds.is_empty() && rounds.iter().all(|round| round.parent_span_id == call.span_id), "{spans:#?}");
    let finds = called("mongodb find");
    let collections: Vec<String> = finds.iter().map(|find| attribute(&find.attributes, "db.collection.name")).collect();
    assert!(collections.contains(&"files".to_owned()), "{collections:?}");
    for find in finds {
        assert!(rounds.iter().any(|round| round.span_id == find.parent_span_id), "{find:#?}");
        assert!(find.start_time_unix_nano >= call.start_time_unix_nano);
        assert!(find.end_time_unix_nano <= call.end_time_unix_nano);
    }
    // No span names the subject or the resource.
    let all = format!("{spans:?}");
    for secret in [id(USER).to_hex(), id(FILE).to_hex()] {
        assert!(!all.contains(&secret), "{all}");
    }
}
