//! The options that the builders of calls, multi calls and streams have in common.

/// Writes the setters of a builder that keeps its [`CallOptions`](crate::CallOptions) in `options`.
/// The argument documents the timeout.
macro_rules! call_options {
    ($timeout:literal) => {
        #[doc = $timeout]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options = self.options.timeout(timeout);
            self
        }

        /// Sets when the caller gives up, on the monotonic clock of the client's runtime; the
        /// earlier of this and the timeout counts. A handler passes its own deadline on with
        /// [`Request::deadline`](crate::Request::deadline), where its server and the client have
        /// the same clock.
        pub fn deadline(mut self, deadline: psrpc_engine::Time) -> Self {
            self.options = self.options.deadline(deadline);
            self
        }

        /// Sends an entry of metadata along, replacing one of the same name.
        pub fn metadata(
            mut self,
            name: impl Into<psrpc_engine::proto::Text>,
            value: impl Into<psrpc_engine::proto::Text>,
        ) -> Self {
            self.options = self.options.metadata(name, value);
            self
        }

        /// Sends entries of metadata along, each replacing one of the same name. A handler passes
        /// on what it got with [`Request::metadata`](crate::Request::metadata).
        pub fn with_metadata(mut self, metadata: &psrpc_engine::proto::Metadata) -> Self {
            self.options = self.options.with_metadata(metadata);
            self
        }

        /// Adds a set of options, as [`CallOptions::with`](crate::CallOptions::with) does. A multi
        /// call ignores a selection among them.
        pub fn options(mut self, options: crate::interceptor::CallOptions) -> Self {
            self.options = self.options.with(options);
            self
        }
    };
}

/// Writes the setter of the selection, for builders of what one server answers.
macro_rules! selection_option {
    () => {
        /// Sets how the server is picked. Default: as the method says.
        pub fn selection(mut self, selection: crate::selection::Selection) -> Self {
            self.options = self.options.selection(selection);
            self
        }
    };
}

pub(super) use {call_options, selection_option};
