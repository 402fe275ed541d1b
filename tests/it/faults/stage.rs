//! A gateway before a scripted upstream, and what every upstream fault must leave behind: a sound
//! answer, a store that says what the client saw, and a gateway that serves the next request.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{
    Fake, Reply, Script, TestGateway, check_resource, check_stream, check_usage, knobs,
};

/// One gateway for many cases; each case has a model name of its own.
pub(crate) struct Stage {
    pub(crate) fake: Fake,
    pub(crate) gateway: TestGateway,
    cases: AtomicUsize,
}

impl Stage {
    /// The deadlines that users get.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Deadlines of a second, so that a silent upstream is a short test.
    pub(crate) fn impatient() -> Self {
        Self::with(&[
            (knobs::IDLE_TIMEOUT, "1s"),
            (knobs::HEAD_TIMEOUT, "1s"),
            (knobs::WHOLE_TIMEOUT, "1s"),
            (knobs::HOLD_STATUS, "200ms"),
            (knobs::KEEP_ALIVE, "200ms"),
        ])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        let fake = Fake::start();
        let mut gateway = TestGateway::on(&fake.url());
        for (name, value) in settings {
            gateway = gateway.env(name, value);
        }
        Self {
            gateway: gateway.start(),
            fake,
            cases: AtomicUsize::new(0),
        }
    }

    fn model(&self, script: Script) -> String {
        let model = format!("case-{}", self.cases.fetch_add(1, Ordering::SeqCst));
        self.fake.on(&model, [script]);
        model
    }

    /// A streamed request; gives its whole body after the common checks.
    pub(crate) fn body(&self, script: Script) -> String {
        let sent = script.bytes();
        let model = self.model(script);
        let reply = self
            .gateway
            .client()
            .create(&json!({"model": model, "input": "x", "stream": true}));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let events = check_stream(&reply.text());
        check_usage(resource(&events), &sent);
        self.check_stored(resource(&events));
        self.check_usable(&model);
        reply.text()
    }

    /// A streamed request; gives its events after the common checks.
    pub(crate) fn streamed(&self, script: Script) -> Vec<Value> {
        check_stream(&self.body(script))
    }

    /// A request whose fault comes before the first byte; streamed, and the status is no 200.
    pub(crate) fn refused(&self, script: Script) -> Reply {
        let model = self.model(script);
        let reply = self
            .gateway
            .client()
            .create(&json!({"model": model, "input": "x", "stream": true}));
        assert_ne!(reply.status, 200, "{}", reply.text());
        self.check_usable(&model);
        reply
    }

    /// A request that does not stream; the status may be any.
    pub(crate) fn whole(&self, script: Script) -> Reply {
        let model = self.model(script);
        let reply = self
            .gateway
            .client()
            .create(&json!({"model": model, "input": "x"}));
        if reply.status == 200 {
            check_resource(&reply.json());
            self.check_stored(&reply.json());
        } else {
            // Asserts the shape of the error.
            let _code = reply.error(reply.status);
        }
        self.check_usable(&model);
        reply
    }

    /// What a client was told is what a read gives.
    fn check_stored(&self, told: &Value) {
        let id = told["id"].as_str().expect("id");
        let stored = self.gateway.client().get(&format!("/v1/responses/{id}"));
        let stored = stored.json();
        for key in ["status", "output", "error", "incomplete_details", "usage"] {
            assert_eq!(
                stored[key], told[key],
                "stored {key} is what the client saw"
            );
        }
    }

    /// The next request is served, at once and by the same upstream.
    fn check_usable(&self, model: &str) {
        self.fake.set(model, [Script::says("ok")]);
        let next = self
            .gateway
            .client()
            .create(&json!({"model": model, "input": "x", "stream": true}));
        assert_eq!(
            ending(&check_stream(&next.text())),
            "response.completed",
            "usable at once"
        );
    }
}

/// Type of the terminal event.
pub(crate) fn ending(events: &[Value]) -> &str {
    events[events.len() - 1]["type"].as_str().expect("type")
}

/// The terminal event's resource.
pub(crate) fn resource(events: &[Value]) -> &Value {
    &events[events.len() - 1]["response"]
}

/// Text of the first message.
pub(crate) fn said(events: &[Value]) -> &str {
    resource(events)["output"][0]["content"][0]["text"]
        .as_str()
        .unwrap_or("")
}

/// Asserts a failed stream: the `error` event has the precise code, flat and nested, and
/// `response.failed` one that the SDK's type knows.
#[track_caller]
pub(crate) fn assert_failed(events: &[Value], code: &str, response_code: &str) {
    assert_eq!(ending(events), "response.failed");
    let error = &events[events.len() - 2];
    assert_eq!(error["type"], "error");
    assert_eq!(
        (&error["code"], &error["error"]["code"]),
        (&json!(code), &json!(code))
    );
    assert_eq!(resource(events)["error"]["code"], response_code);
}
