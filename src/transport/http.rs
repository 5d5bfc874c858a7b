//! HTTP beside gRPC on the same port: which requests are calls, which are plain HTTP, and the answers of `/healthz`, `/readyz`
//! and `/metrics`. These wait for nothing and take no permit, so that no caller can delay a probe.
//!
//! Answers no questions.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, Method, Request, StatusCode, Version,
        header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE},
        uri::Authority,
    },
    response::{IntoResponse, Response},
};

use super::{health::Current, secret::HashedSecret};
use crate::telemetry::Metrics;

/// The most headers of a request. Each costs time, however short it is.
pub(super) const HEADERS_MAX: usize = 64;

/// How often `/metrics` is rendered anew within a second. Further requests get what was rendered last.
const RENDERINGS_MAX: u32 = 20;

/// What a request is.
#[derive(Debug)]
pub(super) enum Kind {
    /// A gRPC call.
    Call,
    /// A request for a page.
    Page(Page),
    /// Neither. This is the response.
    Wrong(Response),
}

/// A page of plain HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// `/healthz`
    Alive,
    /// `/readyz`
    Ready,
    /// `/metrics`
    Metrics,
}

impl Page {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/healthz" => Some(Self::Alive),
            "/readyz" => Some(Self::Ready),
            "/metrics" => Some(Self::Metrics),
            _ => None,
        }
    }
}

/// Whether a request is a gRPC call rather than plain HTTP. Upper and lower case mean the same in a content type.
fn is_call<B>(request: &Request<B>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..GRPC.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(GRPC))
}

/// The tokens of which one is required for `/metrics`.
#[derive(Clone, Debug)]
pub struct MetricsTokens(Arc<[HashedSecret]>);

impl MetricsTokens {
    /// Accepts each of these secrets. Only their hashes are kept.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        Self(secrets.into_iter().map(HashedSecret::of).collect())
    }

    /// Whether this is one of the secrets.
    #[cfg(test)]
    pub(crate) fn has_secret_for_tests(&self, secret: &str) -> bool {
        self.0.iter().any(|known| known.is(&HashedSecret::of(secret)))
    }

    fn accept(&self, headers: &HeaderMap) -> bool {
        let authorization = headers.get(AUTHORIZATION);
        let Some(sent) = authorization.and_then(|header| HashedSecret::sent(header.as_bytes())) else { return false };
        self.0.iter().fold(false, |found, secret| found | secret.is(&sent))
    }
}

/// The pages, and who may ask for them. Clones share what was rendered.
#[derive(Clone)]
pub(super) struct Pages {
    current: Current,
    metrics: Arc<Metrics>,
    tokens: Option<MetricsTokens>,
    rendered: Arc<Mutex<Rendered>>,
}

/// What `/metrics` showed last.
struct Rendered {
    text: Bytes,
    /// The beginning of the present second, and how often the text was rendered in it.
    second: Instant,
    count: u32,
}

impl Pages {
    pub(super) fn new(current: Current, metrics: Arc<Metrics>, tokens: Option<MetricsTokens>) -> Self {
        let rendered = Rendered { text: Bytes::new(), second: Instant::now(), count: 0 };
        Self { current, metrics, tokens, rendered: Arc::new(Mutex::new(rendered)) }
    }

    /// The response to a request for a page. It waits for nothing.
    pub(super) fn answer(&self, page: Page, method: &Method, headers: &HeaderMap) -> Response {
        let mut response = match page {
            Page::Alive => "alive".into_response(),
            Page::Ready => {
                let health = self.current.now();
                let status = if health.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (status, health.describe()).into_response()
            }
            Page::Metrics if self.tokens.as_ref().is_some_and(|tokens| !tokens.accept(headers)) => {
                let message = "no valid token: send `authorization: Bearer <token>` with one of METRICS_TOKEN";
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], message).into_response()
            }
            Page::Metrics => {
                let kind = [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
                (kind, self.rendered()).into_response()
            }
        };
        if method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        response
    }

    /// The metrics as text. What many ask for at once is rendered once and kept in memory once.
    fn rendered(&self) -> Bytes {
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        if rendered.second.elapsed() >= Duration::from_secs(1) {
            rendered.second = Instant::now();
            rendered.count = 0;
        }
        if rendered.count < RENDERINGS_MAX {
            rendered.count += 1;
            rendered.text = self.metrics.render().into();
        }
        rendered.text.clone()
    }
}

/// What a port requires of its requests before it looks at what they ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Whether the port listens on this machine only. Then a request for the metrics must name this machine: a web page whose
    /// own name was made to point here (DNS rebinding) cannot do that. On other addresses, every name may be right: Kubernetes
    /// sends the address of the pod, and Prometheus what it was configured with. So it may for a probe, which a proxy on this
    /// machine may pass on with the name that it was sent.
    pub(super) is_local: bool,
}

impl Rules {
    /// What kind of request this is.
    pub(super) fn kind<B>(self, request: &Request<B>) -> Kind {
        let headers = request.headers();
        let is_grpc = is_call(request);
        if headers.len() > HEADERS_MAX {
            return Kind::Wrong(if is_grpc {
                let message = format!("more than {HEADERS_MAX} headers");
                tonic::Status::resource_exhausted(message).into_http()
            } else {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response()
            });
        }
        if let Some(page) = Page::at(request.uri().path()) {
            return self.refusal(page, request).map_or(Kind::Page(page), Kind::Wrong);
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if is_read && !is_grpc {
            return Kind::Wrong(StatusCode::NOT_FOUND.into_response());
        }
        // A browser sends other content types for any web page, to any server that it reaches.
        if request.version() != Version::HTTP_2 || request.method() != Method::POST || !has_grpc_type(headers) {
            let message = "calls require HTTP/2, POST and the content type application/grpc";
            return Kind::Wrong((StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response());
        }
        Kind::Call
    }

    /// Why a request for a page is refused.
    fn refusal<B>(self, page: Page, request: &Request<B>) -> Option<Response> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some((StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")]).into_response());
        }
        let headers = request.headers();
        let in_header = headers.get_all(HOST).iter().map(|host| host.to_str().ok().and_then(|host| host.parse().ok()));
        let hosts: Vec<Option<Authority>> =
            request.uri().authority().cloned().map(Some).into_iter().chain(in_header).collect();
        let must_name_machine = match page {
            Page::Alive | Page::Ready => false,
            Page::Metrics => self.is_local,
        };
        if must_name_machine && !hosts.iter().all(|host| host.as_ref().is_some_and(is_this_machine)) {
            let message =
                "the header `host` must name this machine, as 127.0.0.1 or localhost: the port listens on it only";
            return Some((StatusCode::FORBIDDEN, message).into_response());
        }
        let is_own = |origin: &str| {
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            authority
                .is_some_and(|origin| hosts.iter().flatten().any(|host| host.as_str().eq_ignore_ascii_case(origin)))
        };
        if !headers.get_all(ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(is_own)) {
            let message = "requests of web pages of other origins are refused";
            return Some((StatusCode::FORBIDDEN, message).into_response());
        }
        None
    }
}

/// Whether the content type is one that the services understand.
fn has_grpc_type(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let kind = kind.split_once(';').map_or(kind, |(kind, _)| kind).trim_end();
    ["application/grpc", "application/grpc+proto"].iter().any(|grpc| kind.eq_ignore_ascii_case(grpc))
}

/// Whether an authority names this machine.
fn is_this_machine(authority: &Authority) -> bool {
    let host = authority.host().trim_end_matches('.');
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_loopback = address.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback());
    let name = host.to_ascii_lowercase();
    is_loopback || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::watch;

    use super::{super::health::Health, *};
    use crate::telemetry::{Kind as MetricKind, SampledMetric};

    fn status(is_local: bool, request: axum::http::request::Builder) -> Option<u16> {
        match (Rules { is_local }).kind(&request.body(()).unwrap()) {
            Kind::Call | Kind::Page(_) => None,
            Kind::Wrong(response) => Some(response.status().as_u16()),
        }
    }

    fn get(host: &str) -> axum::http::request::Builder {
        Request::get("/metrics").header(HOST, host)
    }

    #[test]
    fn on_a_local_port_a_page_is_shown_to_this_machine_only() {
        for host in
            ["localhost", "LOCALHOST:50051", "127.0.0.1:1", "127.9.9.9", "[::1]:50051", "a.localhost", "localhost."]
        {
            assert_eq!(status(true, get(host)), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:50051",
            "10.0.0.1",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "a b",
        ] {
            assert_eq!(status(true, get(host)), Some(403), "{host}");
        }
        assert_eq!(status(true, get("localhost").header(HOST, "evil.example")), Some(403), "two hosts");
        assert_eq!(
            status(true, Request::get("http://evil.example/metrics")),
            Some(403),
            "HTTP/2, or a proxy's request"
        );
        for host in ["10.0.0.1:50051", "permcached.internal", "localhost"] {
            assert_eq!(status(false, get(host)), None, "{host}");
        }
    }

    /// As a proxy on the same machine passes it on.
    #[test]
    fn on_a_local_port_a_probe_may_name_any_host_and_still_no_web_page_of_another_origin_may_send_it() {
        for path in ["/healthz", "/readyz"] {
            for host in ["permcached.example", "10.0.0.7:50051", "", "localhost"] {
                assert_eq!(status(true, Request::get(path).header(HOST, host)), None, "{path} {host}");
            }
            let foreign = Request::get(path).header(HOST, "10.0.0.7").header(ORIGIN, "http://evil.example");
            assert_eq!(status(true, foreign), Some(403), "{path}");
        }
        let call = Request::post("/permcached.v1.InvalidationService/Invalidate").header(HOST, "evil.example");
        assert_eq!(status(true, call.header(CONTENT_TYPE, "text/plain")), Some(415), "a page cannot reach calls");
    }

    #[test]
    fn pages_are_pages_without_authorization_on_every_port_and_version() {
        for (path, expected) in [("/healthz", Page::Alive), ("/readyz", Page::Ready), ("/metrics", Page::Metrics)] {
            for (is_local, version) in [(true, Version::HTTP_11), (false, Version::HTTP_11), (true, Version::HTTP_2)] {
                for authorization in [None, Some("Bearer unknown")] {
                    let request = Request::get(format!("http://localhost{path}")).version(version);
                    let request =
                        authorization.into_iter().fold(request, |request, value| request.header(AUTHORIZATION, value));
                    match (Rules { is_local }).kind(&request.body(()).unwrap()) {
                        Kind::Page(page) => assert_eq!(page, expected),
                        kind => panic!("{path}: {kind:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_web_page_of_another_origin_is_refused() {
        for is_local in [true, false] {
            assert_eq!(status(is_local, get("localhost:1").header(ORIGIN, "http://localhost:1")), None);
            for origin in ["http://localhost:2", "http://evil.example", "null", "", "localhost:1", "file://"] {
                assert_eq!(status(is_local, get("localhost:1").header(ORIGIN, origin)), Some(403), "{origin}");
            }
        }
    }

    #[test]
    fn every_request_with_a_content_type_of_grpc_is_a_call_in_whatever_case() {
        for (kind, is) in [("application/grpc", true), ("Application/GRPC+proto", true), ("text/plain", false)] {
            let request = Request::builder().header(CONTENT_TYPE, kind).body(()).expect("a request");
            assert_eq!(is_call(&request), is, "{kind}");
        }
    }

    #[test]
    fn a_call_requires_http_2_and_post_and_the_content_type_of_grpc() {
        let post = |version, kind: Option<&str>| {
            let request = Request::post("/permcached.v1.InvalidationService/Invalidate").version(version);
            status(true, kind.into_iter().fold(request, |request, kind| request.header(CONTENT_TYPE, kind)))
        };
        for kind in
            ["application/grpc", "application/grpc+proto", "Application/gRPC", "application/grpc; charset=utf-8"]
        {
            assert_eq!(post(Version::HTTP_2, Some(kind)), None, "{kind}");
            assert_eq!(post(Version::HTTP_11, Some(kind)), Some(415), "{kind}");
        }
        let foreign = [
            "text/plain",
            "application/grpc-web",
            "application/grpc+json",
            "application/grpcx",
            "application/json",
            "",
        ];
        for kind in foreign.map(Some).into_iter().chain([None]) {
            assert_eq!(post(Version::HTTP_2, kind), Some(415), "{kind:?}");
            assert_eq!(post(Version::HTTP_11, kind), Some(415), "{kind:?}");
        }
        let get = Request::get("/permcached.v1.InvalidationService/Invalidate").version(Version::HTTP_2);
        assert_eq!(status(true, get.header(CONTENT_TYPE, "application/grpc")), Some(415));
    }

    #[test]
    fn a_page_is_only_read() {
        for (method, expected) in [("GET", None), ("HEAD", None), ("POST", Some(405)), ("OPTIONS", Some(405))] {
            let request = Request::builder().method(method).uri("/readyz").header(HOST, "localhost");
            assert_eq!(status(true, request), expected, "{method}");
        }
        assert_eq!(status(true, Request::get("/nothing").header(HOST, "localhost")), Some(404));
    }

    #[test]
    fn too_many_headers_are_refused_however_short_they_are() {
        let with = |count| (0..count).fold(get("localhost"), |request, _| request.header("a", ""));
        assert_eq!(status(true, with(63)), None);
        assert_eq!(status(true, with(64)), Some(431));
    }

    #[test]
    fn what_many_ask_for_within_a_second_is_rendered_a_bounded_number_of_times() {
        let rendered = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&rendered);
        let metrics = Arc::new(Metrics::default());
        metrics.show(SampledMetric::new("permcached_renderings", "counts itself", MetricKind::Gauge).of(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(1.0)
        }));
        let (_health, health) = watch::channel(Health::Ready);
        let current = Current { health, is_draining: watch::channel(false).1 };
        let pages = Pages::new(current, metrics, None);
        let began = Instant::now();
        for _ in 0..1_000 {
            let _text = pages.answer(Page::Metrics, &Method::GET, &HeaderMap::new());
        }
        let seconds = u32::try_from(began.elapsed().as_secs()).unwrap() + 2;
        assert!(rendered.load(Ordering::Relaxed) <= seconds * RENDERINGS_MAX, "{rendered:?} in {seconds} s");
    }

    #[test]
    fn metrics_tokens_are_compared_whole() {
        let tokens = MetricsTokens::new(["old", "new"]);
        let accepts = |authorization: Option<&str>| {
            let headers = authorization.map(|value| (AUTHORIZATION, value.parse().unwrap()));
            tokens.accept(&headers.into_iter().collect())
        };
        assert!(accepts(Some("Bearer old")) && accepts(Some("bearer new")));
        for wrong in [None, Some("Bearer "), Some("old"), Some("Bearer newer"), Some("Basic old")] {
            assert!(!accepts(wrong), "{wrong:?}");
        }
        assert!(!format!("{tokens:?}").contains("old"));
    }
}
