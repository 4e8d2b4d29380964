//! The options shared by the builders of calls, multi calls and streams.

/// Generates the setters of a builder that has its [`CallOptions`](crate::CallOptions) in
/// `options`. The argument is the documentation of the timeout.
macro_rules! call_options {
    ($timeout:literal) => {
        #[doc = $timeout]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options = self.options.timeout(timeout);
            self
        }

        /// Sets the time at which the caller gives up, on the monotonic clock of the client's
        /// runtime. The earlier of this and the timeout applies.
        ///
        /// A handler that makes a call uses [`within`](Self::within) instead.
        pub fn deadline(mut self, deadline: psrpc_engine::Time) -> Self {
            self.options = self.options.deadline(deadline);
            self
        }

        /// Makes the call within the handler of this request or stream, as part of its work:
        ///
        /// - The call's deadline is no later than the handler's. The handler of a stream has none.
        /// - The call ends with `canceled` when the handler ends, also if another task awaits it.
        ///   The handler of a [hijacked](crate::ServerStream::hijack) stream ends when it returns.
        ///   A stream that was opened within a handler stays open.
        /// - The trace context of the request (`traceparent`, `tracestate` and `baggage`) and the
        ///   entries named by
        ///   [`ClientOptions::propagate_metadata`](crate::ClientOptions::propagate_metadata) are
        ///   added to the metadata, unless the call has entries of the same names.
        pub fn within(mut self, input: &impl crate::HandlerInput) -> Self {
            self.options = self.options.within(input);
            self
        }

        /// Adds a metadata entry, replacing an entry of the same name.
        pub fn metadata(
            mut self,
            name: impl Into<psrpc_engine::proto::Text>,
            value: impl Into<psrpc_engine::proto::Text>,
        ) -> Self {
            self.options = self.options.metadata(name, value);
            self
        }

        /// Adds metadata entries, replacing entries of the same names. To pass on all metadata of a
        /// request, a handler passes [`Request::metadata`](crate::Request::metadata).
        pub fn with_metadata(mut self, metadata: &psrpc_engine::proto::Metadata) -> Self {
            self.options = self.options.with_metadata(metadata);
            self
        }

        /// Merges a set of options into these, as [`CallOptions::with`](crate::CallOptions::with)
        /// does. A multi call ignores the selection in them.
        pub fn options(mut self, options: crate::interceptor::CallOptions) -> Self {
            self.options = self.options.with(options);
            self
        }
    };
}

/// Generates the setter of the selection, for calls that one server answers.
macro_rules! selection_option {
    () => {
        /// Sets how the call selects its server. Default: the method's own selection.
        pub fn selection(mut self, selection: crate::selection::Selection) -> Self {
            self.options = self.options.selection(selection);
            self
        }

        /// Waits for a server to subscribe if the bus knows that there is none: the request is
        /// published again, with pauses of at most 250 ms, until it reaches a subscriber, the
        /// selection times out or the deadline passes. By default such a call fails at once, with
        /// [`NobodySubscribed`](crate::Reason::NobodySubscribed).
        ///
        /// The in-process bus knows, and Redis does unless it is a cluster. Redis counts every
        /// subscriber of the channel, such as a monitor with a pattern, but not the subscribers of
        /// its replicas: servers must not subscribe there, since a request that they run may be
        /// published again.
        pub fn wait_for_subscriber(mut self) -> Self {
            self.options = self.options.wait_for_subscriber();
            self
        }
    };
}

pub(super) use {call_options, selection_option};
