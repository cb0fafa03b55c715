//! What each failure on the way to a bucket comes to, and how many requests it costs.

mod common;

use std::error::Error as _;
use std::time::Duration;

use cabinet_durability::store::{
    BlobStore, Condition, Outcome, S3Error, S3Store, StoreError, Version, Want,
};
use tokio::net::TcpListener;

use common::proxy::{Fault, Proxy};
use common::server::Server;
use common::{key, options, store};

const WHOLE: Want = Want::Whole { max: 1 << 20 };
const OLD: &str = "the old object";
const NEW: &str = "the new object";

/// Requests a call makes at most; see [`common::options`].
const ATTEMPTS_MAX: usize = 3;

struct Bench {
    _server: Server,
    proxy: Proxy,
    store: S3Store,
}

impl Bench {
    async fn new() -> Self {
        let server = Server::start().await;
        let proxy = Proxy::start(server.address).await;
        let store = store(options(proxy.address));
        Self {
            _server: server,
            proxy,
            store,
        }
    }

    /// An object as it was, and its version.
    async fn reset(&self) -> Version {
        self.proxy.script("PUT", []);
        let put = self.store.put(&key("a"), OLD.into(), Condition::None).await;
        put.expect("the put")
    }

    async fn there(&self) -> String {
        self.proxy.script("GET", []);
        let got = self.store.get(&key("a"), WHOLE).await.expect("it reads");
        String::from_utf8(got.expect("an object").bytes.to_vec()).expect("text")
    }
}

struct PutCase {
    name: &'static str,
    faults: Vec<Option<Fault>>,
    /// Of a put without a condition, and of one with.
    plain: (Outcome, usize, &'static str),
    conditional: (Outcome, usize, &'static str),
}

fn always(fault: Fault) -> Vec<Option<Fault>> {
    vec![Some(fault); ATTEMPTS_MAX]
}

fn once(fault: Fault) -> Vec<Option<Fault>> {
    vec![Some(fault)]
}

fn put_cases() -> Vec<PutCase> {
    use Fault::{Answer, Duplicate, LoseReply, LoseRequest};
    use Outcome::{Ambiguous, Conflict, Ok, Other, Precondition, Refused, Unavailable};
    let case = |name, faults, plain, conditional| PutCase {
        name,
        faults,
        plain,
        conditional,
    };
    let conflict = Answer(409, "ConditionalRequestConflict");
    let slow = Answer(503, "SlowDown");
    let many = Answer(429, "TooManyRequests");
    let internal = Answer(500, "InternalError");
    let all = ATTEMPTS_MAX;
    vec![
        case("nothing", vec![], (Ok, 1, NEW), (Ok, 1, NEW)),
        case("one 409", once(conflict), (Ok, 2, NEW), (Ok, 2, NEW)),
        case(
            "409s",
            always(conflict),
            (Conflict, all, OLD),
            (Conflict, all, OLD),
        ),
        case("one 503", once(slow), (Ok, 2, NEW), (Ok, 2, NEW)),
        case(
            "503s",
            always(slow),
            (Unavailable, all, OLD),
            (Unavailable, all, OLD),
        ),
        case(
            "429s",
            always(many),
            (Unavailable, all, OLD),
            (Unavailable, all, OLD),
        ),
        case("one 500", once(internal), (Ok, 2, NEW), (Ambiguous, 1, OLD)),
        case(
            "500s",
            always(internal),
            (Ambiguous, all, OLD),
            (Ambiguous, 1, OLD),
        ),
        case(
            "412",
            once(Answer(412, "PreconditionFailed")),
            (Precondition, 1, OLD),
            (Precondition, 1, OLD),
        ),
        case(
            "404",
            once(Answer(404, "NoSuchKey")),
            (Refused, 1, OLD),
            (Precondition, 1, OLD),
        ),
        case(
            "501",
            once(Answer(501, "NotImplemented")),
            (Refused, 1, OLD),
            (Other, 1, OLD),
        ),
        case(
            "403",
            once(Answer(403, "AccessDenied")),
            (Refused, 1, OLD),
            (Refused, 1, OLD),
        ),
        case(
            "301",
            once(Answer(301, "PermanentRedirect")),
            (Refused, 1, OLD),
            (Refused, 1, OLD),
        ),
        case(
            "one lost reply",
            once(LoseReply),
            (Ok, 2, NEW),
            (Ambiguous, 1, NEW),
        ),
        case(
            "lost replies",
            always(LoseReply),
            (Ambiguous, all, NEW),
            (Ambiguous, 1, NEW),
        ),
        case(
            "one lost request",
            once(LoseRequest),
            (Ok, 2, NEW),
            (Ambiguous, 1, OLD),
        ),
        case(
            "lost requests",
            always(LoseRequest),
            (Ambiguous, all, OLD),
            (Ambiguous, 1, OLD),
        ),
        // The reply is to the second of the two, which comes where the first was.
        case(
            "a duplicate",
            once(Duplicate),
            (Ok, 1, NEW),
            (Precondition, 1, NEW),
        ),
        case(
            "a lost reply, then a 403",
            vec![Some(LoseReply), Some(Answer(403, "AccessDenied"))],
            (Ambiguous, 2, NEW),
            (Ambiguous, 1, NEW),
        ),
        case(
            "a 503, then a lost reply",
            vec![Some(slow), Some(LoseReply)],
            (Ok, 3, NEW),
            (Ambiguous, 2, NEW),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_of_a_put_has_its_class_and_its_requests() {
    let bench = Bench::new().await;
    for case in put_cases() {
        for conditional in [false, true] {
            let old = bench.reset().await;
            let (condition, expected) = match conditional {
                false => (Condition::None, case.plain),
                true => (Condition::Matches(old), case.conditional),
            };
            bench.proxy.script("PUT", case.faults.clone());
            let answer = bench.store.put(&key("a"), NEW.into(), condition).await;
            let seen = bench.proxy.seen("PUT");
            let found = (Outcome::of(&answer), seen);
            let name = format!("{}, conditional: {conditional}: {answer:?}", case.name);
            assert_eq!(found, (expected.0, expected.1), "{name}");
            assert_eq!(bench.there().await, expected.2, "{name}");
            if let Err(error) = answer
                && let Some(error) = error
                    .source()
                    .and_then(|cause| cause.downcast_ref::<S3Error>())
            {
                assert_eq!(error.attempts() as usize, seen, "{name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_late_leaves_a_conditional_put_ambiguous_and_a_plain_one_tried_again() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.address).await;
    let mut impatient = options(proxy.address);
    impatient.timeouts.attempt = Duration::from_millis(200);
    impatient.retries.attempts_max = 1_000;
    let store = store(impatient);
    // Held until the client gives up: on a slow machine sooner, and to the same end.
    proxy.script("PUT", vec![Some(Fault::HoldReply); 1_000]);
    let put = store.put(&key("a"), NEW.into(), Condition::Absent).await;
    assert!(matches!(put, Err(StoreError::Ambiguous(_))), "{put:?}");
    assert!(proxy.seen("PUT") <= 1);
    proxy.script("PUT", [Some(Fault::HoldReply)]);
    let put = store.put(&key("a"), NEW.into(), Condition::None).await;
    put.expect("some request has its reply in time");
    assert!(proxy.seen("PUT") >= 2);
    proxy.script("GET", [Some(Fault::HoldReply)]);
    let got = store.get(&key("a"), WHOLE).await.expect("it reads");
    assert_eq!(got.expect("an object").bytes, NEW);
    assert!(proxy.seen("GET") >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_nothing_was_done() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let store = store(options(address));
    for condition in [Condition::None, Condition::Absent] {
        let put = store.put(&key("a"), NEW.into(), condition).await;
        let Err(StoreError::Unavailable(cause)) = put else {
            panic!("{put:?}");
        };
        let error = cause.downcast_ref::<S3Error>().expect("ours");
        assert_eq!(
            (error.attempts() as usize, error.status()),
            (ATTEMPTS_MAX, None)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secure_connection_nothing_was_done() {
    let server = Server::start().await;
    let mut options = options(server.address);
    // The server speaks no TLS, so that every handshake fails.
    options.endpoint = Some(format!("https://{}", server.address));
    let put = store(options)
        .put(&key("a"), NEW.into(), Condition::Absent)
        .await;
    let Err(StoreError::Unavailable(cause)) = put else {
        panic!("{put:?}");
    };
    let error = cause.downcast_ref::<S3Error>().expect("ours");
    assert_eq!(error.attempts() as usize, ATTEMPTS_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_is_tried_again_until_all_of_it_came() {
    let bench = Bench::new().await;
    bench.reset().await;
    use Fault::{Answer, LoseReply, LoseRequest, Truncate};
    use Outcome::{Ok, Refused, Unavailable};
    let slow = Answer(503, "SlowDown");
    for (faults, expected) in [
        (vec![], (Ok, 1)),
        (once(Truncate), (Ok, 2)),
        (always(Truncate), (Unavailable, 3)),
        (vec![Some(slow), Some(LoseReply)], (Ok, 3)),
        (always(slow), (Unavailable, 3)),
        (once(LoseRequest), (Ok, 2)),
        (always(Answer(500, "InternalError")), (Unavailable, 3)),
        (once(Answer(409, "OperationAborted")), (Ok, 2)),
        (once(Answer(403, "AccessDenied")), (Refused, 1)),
        (once(Answer(404, "NoSuchBucket")), (Refused, 1)),
        (once(Answer(404, "NoSuchKey")), (Ok, 1)),
    ] {
        for want in [WHOLE, Want::First(10)] {
            bench.proxy.script("GET", faults.clone());
            let answer = bench.store.get(&key("a"), want).await;
            let found = (Outcome::of(&answer), bench.proxy.seen("GET"));
            assert_eq!(found, expected, "{faults:?} {want:?} {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_and_listings_are_tried_again() {
    let bench = Bench::new().await;
    let keys = [key("a"), key("b")];
    for (keys, method) in [(&keys[..1], "DELETE"), (&keys[..], "POST")] {
        for fault in [
            Fault::LoseReply,
            Fault::LoseRequest,
            Fault::Answer(503, "SlowDown"),
            Fault::Answer(500, "InternalError"),
            Fault::Duplicate,
        ] {
            bench.reset().await;
            bench.proxy.script(method, [Some(fault)]);
            let deleted = bench.store.delete(keys).await;
            let expected = if fault == Fault::Duplicate { 1 } else { 2 };
            assert_eq!(bench.proxy.seen(method), expected, "{fault:?}");
            deleted.expect("it is deleted");
            let page = bench.store.list("", None, 1).await.expect("a page");
            assert!(page.entries.is_empty(), "{fault:?}");
        }
    }
    bench.reset().await;
    for fault in [
        Fault::Truncate,
        Fault::LoseReply,
        Fault::Answer(503, "SlowDown"),
    ] {
        bench.proxy.script("GET", [Some(fault)]);
        let page = bench.store.list("", None, 10).await.expect("a page");
        assert_eq!(
            (page.entries.len(), bench.proxy.seen("GET")),
            (1, 2),
            "{fault:?}"
        );
    }
    bench
        .proxy
        .script("POST", [Some(Fault::Answer(403, "AccessDenied"))]);
    let deleted = bench.store.delete(&keys).await;
    assert!(
        matches!(deleted, Err(StoreError::Refused(_))),
        "{deleted:?}"
    );
}
