//! Generates Rust code from the model.

use std::fmt::Write;

use prost_build::{Comments, ServiceGenerator};
use psrpc_proto::Routing;

use crate::model::{Kind, Method, Service, Services, TopicParameter, rust_name};

/// Appends the code of each service to the messages of its package.
pub(crate) struct Generator {
    pub(crate) services: Services,
    /// The path of the psrpc crate.
    pub(crate) root: String,
    /// True if that crate has a default runtime.
    pub(crate) default_runtime: bool,
    /// True if trait methods have default bodies, which fail with `unimplemented`.
    pub(crate) unimplemented: bool,
    /// True if clients are generated.
    pub(crate) client: bool,
    /// True if servers are generated.
    pub(crate) server: bool,
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, prost: prost_build::Service, buf: &mut String) {
        let package = if prost.package.is_empty() { String::new() } else { format!("{}.", prost.package) };
        let service = &self.services[&format!("{package}{}", prost.proto_name)];
        let code = Code { service, prost: &prost, of: self };
        buf.push_str(&code.constant());
        if self.client {
            buf.push_str(&code.api());
            buf.push_str(&code.client());
        }
        if self.server {
            buf.push_str(&code.handlers());
            buf.push_str(&code.server());
        }
    }

    /// Adds lint attributes to the items that prost has generated so far. Only unindented lines are
    /// considered: items within a module are covered by the attribute of the module.
    fn finalize(&mut self, buf: &mut String) {
        let is_item = |line: &str| {
            ["pub struct ", "pub enum ", "pub mod ", "impl "].iter().any(|start| line.starts_with(start))
                && !line.contains("::Name for ")
        };
        let mut out = String::with_capacity(buf.len());
        let mut before = "";
        for line in buf.lines() {
            if is_item(line) && before != LINTS {
                out.push_str(LINTS);
                out.push('\n');
            }
            out.push_str(line);
            out.push('\n');
            before = line;
        }
        *buf = out;
    }
}

/// Lints about style do not apply to generated code.
const LINTS: &str = "#[allow(clippy::all, clippy::pedantic)]";

/// One service: its model, and prost's description of its messages.
struct Code<'a> {
    service: &'a Service,
    prost: &'a prost_build::Service,
    of: &'a Generator,
}

impl Code<'_> {
    fn root(&self) -> &str {
        &self.of.root
    }

    fn methods(&self) -> impl Iterator<Item = (usize, &Method, &prost_build::Method)> {
        self.service
            .methods
            .iter()
            .zip(&self.prost.methods)
            .enumerate()
            .map(|(index, (method, prost))| (index, method, prost))
    }

    /// Returns the path of a message, qualified if a type parameter has the same name.
    fn message(&self, path: &str) -> String {
        if self.service.type_parameters().contains(&path) { format!("self::{path}") } else { path.to_owned() }
    }

    fn constant(&self) -> String {
        let Service { name, constant, wire, .. } = self.service;
        let root = self.root();
        let mut methods = String::new();
        for (index, method, _) in self.methods() {
            let routing = match method.properties.routing {
                Routing::Queue => "Queue",
                Routing::Affinity => "Affinity",
                Routing::Multi => "Multi",
            };
            let kind = match method.kind {
                Kind::Unary | Kind::Multi => "call",
                Kind::Stream => "stream",
                Kind::Subscription => "subscription",
            };
            let (wire, require_claim) = (&method.wire, method.properties.require_claim);
            let Method { request, response, .. } = method;
            push!(
                methods,
                "{root}::Method::{kind}(
                    {index},
                    {wire:?},
                    {root}::MethodProperties {{
                        routing: {root}::Routing::{routing},
                        require_claim: {require_claim},
                    }},
                )
                .messages({request:?}, {response:?}),"
            );
        }
        format!(
            "/// The methods of `{name}`, with their names on the wire.
            #[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            pub static {constant}: {root}::Service =
                {root}::Service {{ name: {wire:?}, methods: &[{methods}] }};\n"
        )
    }

    /// Returns the return type and the body of a client's method.
    fn call(
        &self,
        index: usize,
        method: &Method,
        prost: &prost_build::Method,
        topic: &str,
    ) -> (String, String) {
        let root = self.root();
        let (request, response) = (self.message(&prost.input_type), self.message(&prost.output_type));
        let method_constant = format!("&{}.methods[{index}], &[{topic}]", self.service.constant);
        match method.kind {
            Kind::Unary => (
                format!("{root}::Call<{request}, {response}>"),
                format!("self.client.call({method_constant}, request)"),
            ),
            Kind::Multi => (
                format!("{root}::MultiCall<{request}, {response}>"),
                format!("self.client.multi_call({method_constant}, request)"),
            ),
            Kind::Stream => (
                format!("{root}::OpenStream<{request}, {response}>"),
                format!("self.client.open_stream({method_constant})"),
            ),
            Kind::Subscription => (
                format!("{root}::Subscribe<{response}>"),
                format!("self.client.subscribe({method_constant})"),
            ),
        }
    }

    /// Returns the request parameter of a client's method; empty if it has none.
    fn request_parameter(&self, method: &Method, prost: &prost_build::Method) -> String {
        match method.kind {
            Kind::Unary | Kind::Multi => format!("request: {}", self.message(&prost.input_type)),
            Kind::Stream | Kind::Subscription => String::new(),
        }
    }

    /// Returns the doc comment of a client's method.
    fn client_docs(&self, method: &Method, prost: &prost_build::Method) -> String {
        let mut docs = docs(&prost.comments, &default_client_docs(method, &prost.proto_name));
        if self.service.shares_queue(method) {
            push!(
                docs,
                "///
                /// On NATS, servers of this service may receive updates instead of the
                /// subscribers, and subscribers may receive requests instead of the servers. Both
                /// are then lost. To avoid this, see
                /// [`Subscription`]({root}::Subscription#on-nats).\n",
                root = self.root()
            );
        }
        docs
    }

    /// Generates the `Api` trait and its implementation for the client.
    fn api(&self) -> String {
        let Service { name, .. } = self.service;
        let Generics { used, bounds, .. } = self.generics();
        let (mut declared, mut implemented) = (String::new(), String::new());
        for (index, method, prost) in self.methods() {
            let function = rust_name(&method.client_function());
            let names: Vec<_> = method.topic.iter().map(|parameter| rust_name(&parameter.name)).collect();
            let parameters: String = names.iter().map(|name| format!("{name}: &str,")).collect();
            let (result, call) = self.call(index, method, prost, &names.join(", "));
            let signature = format!(
                "fn {function}(&self, {parameters} {request}) -> {result}",
                request = self.request_parameter(method, prost)
            );
            let docs = self.client_docs(method, prost);
            let deprecated = deprecation(method);
            push!(declared, "{docs}{deprecated}{signature};\n");
            push!(implemented, "{signature} {{ {call} }}\n");
        }
        format!(
            "/// The calls of a client of `{name}`.
            ///
            /// [`{name}Client`] implements it. Unit tests can implement it with a mock, since all
            /// return types can be created without a client.
            #[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            pub trait {name}Api: ::core::marker::Send + ::core::marker::Sync {{
                {declared}
            }}

            impl<{bounds}> {name}Api for {name}Client{used} {{
                {implemented}
            }}\n"
        )
    }

    fn client(&self) -> String {
        let Service { name, constant, .. } = self.service;
        let root = self.root();
        let Generics { declared, fields, values, .. } = self.generics();
        let mut calls = String::new();
        for (index, method, prost) in self.methods() {
            let function = rust_name(&method.client_function());
            let (parameters, topic) = topic_parameters(&method.topic);
            let (result, call) = self.call(index, method, prost, &topic);
            push!(
                calls,
                "{docs}{deprecated}pub fn {function}(&self, {parameters} {request}) -> {result} {{
                    {call}
                }}\n",
                deprecated = deprecation(method),
                docs = self.client_docs(method, prost),
                request = self.request_parameter(method, prost),
            );
        }
        let default = if self.of.default_runtime {
            format!(
                "/// Creates a client on the current runtime. It can make calls as soon as this returns.
                ///
                /// # Errors
                ///
                /// Returns an error if the bus refuses the subscriptions or there is no current
                /// runtime.
                pub async fn new(bus: impl {root}::bus::Bus) -> ::core::result::Result<Self, {root}::Error> {{
                    Self::with_options(bus, {root}::ClientOptions::new()).await
                }}

                /// Creates a client with options; see [`new`](Self::new).
                ///
                /// # Errors
                ///
                /// Returns an error if the bus refuses the subscriptions, there is no current
                /// runtime, or an option is invalid.
                pub async fn with_options(
                    bus: impl {root}::bus::Bus,
                    options: {root}::ClientOptions,
                ) -> ::core::result::Result<Self, {root}::Error> {{
                    Self::with_runtime(bus, {root}::default_runtime()?, options).await
                }}\n"
            )
        } else {
            String::new()
        };
        format!(
            "/// A client of `{name}`. Cheap to clone; dropping the last clone closes it.
            {docs}#[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            pub struct {name}Client{declared} {{
                client: {root}::Client,
                {fields}
            }}

            #[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            impl {name}Client {{
                {default}

                /// Creates a client on `bus` and `runtime`. It can make calls as soon as this
                /// returns.
                ///
                /// # Errors
                ///
                /// Returns an error if the bus refuses the subscriptions or an option is invalid.
                pub async fn with_runtime(
                    bus: impl {root}::bus::Bus,
                    runtime: impl {root}::Runtime,
                    options: {root}::ClientOptions,
                ) -> ::core::result::Result<Self, {root}::Error> {{
                    let client = {root}::Client::new(bus, runtime, &{constant}, options).await?;
                    Ok(Self {{ client, {values} }})
                }}

                {typed}

                {calls}

                /// Returns the underlying untyped client.
                pub fn client(&self) -> &{root}::Client {{
                    &self.client
                }}

                /// Returns the client for calls within a handler: they end with it, by its
                /// deadline; see [`{root}::Client::within`].
                #[must_use]
                pub fn within(&self, input: &impl {root}::HandlerInput) -> Self {{
                    Self {{ client: self.client.within(input), {values} }}
                }}

                /// Closes the client. Calls in flight and later calls fail at once.
                pub fn close(&self) {{
                    self.client.close();
                }}

                /// Closes the client and waits until the bus has accepted its last frames; see
                /// [`{root}::Client::shutdown`].
                pub async fn shutdown(&self) {{
                    self.client.shutdown().await;
                }}
            }}

            {common}",
            docs = docs_below(&self.prost.comments),
            typed = self.typed("Client", "client"),
            common = self.common("Client", "client"),
        )
    }

    /// Generates `with_topic_types`, and starts a second impl block. The methods before it exist
    /// only with `str` topics, so that callers need no type annotations; the methods after it exist
    /// with all topic types.
    fn typed(&self, kind: &str, field: &str) -> String {
        let name = &self.service.name;
        let Generics { used, bounds, values, .. } = self.generics();
        if used.is_empty() {
            return String::new();
        }
        format!(
            "/// Sets the types of typed topics, in the order of the .proto.
            pub fn with_topic_types<{bounds}>(self) -> {name}{kind}{used} {{
                {name}{kind} {{ {field}: self.{field}, {values} }}
            }}
            }}

            #[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            impl<{bounds}> {name}{kind}{used} {{"
        )
    }

    /// Generates `Clone` and `Debug`, for a client or a server.
    fn common(&self, kind: &str, field: &str) -> String {
        let name = &self.service.name;
        let Generics { used, bounds, values, .. } = self.generics();
        format!(
            "impl<{bounds}> ::core::clone::Clone for {name}{kind}{used} {{
                fn clone(&self) -> Self {{
                    Self {{ {field}: self.{field}.clone(), {values} }}
                }}
            }}

            impl<{bounds}> ::core::fmt::Debug for {name}{kind}{used} {{
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{
                    ::core::fmt::Debug::fmt(&self.{field}, f)
                }}
            }}\n"
        )
    }

    fn handlers(&self) -> String {
        let name = &self.service.name;
        let root = self.root();
        let mut functions = String::new();
        for (_, method, prost) in self.methods().filter(|(_, method, _)| method.is_served()) {
            let function = rust_name(&method.name);
            let (request, response) = (&prost.input_type, &prost.output_type);
            let (parameter, result, affinity_request) = match method.kind {
                Kind::Stream => (
                    format!("stream: {root}::ServerStream<{response}, {request}>"),
                    "()".to_owned(),
                    "()".to_owned(),
                ),
                _ => (format!("request: {root}::Request<{request}>"), response.clone(), request.clone()),
            };
            let body = |otherwise: &str| match self.of.unimplemented {
                true => format!("{{ {otherwise} }}"),
                false => ";".to_owned(),
            };
            let dropped = parameter.split(':').next().unwrap_or_default();
            push!(
                functions,
                "{docs}fn {function}(&self, {parameter})
                    -> impl ::core::future::Future<Output = ::core::result::Result<{result}, {root}::Error>> + ::core::marker::Send
                {body}\n",
                docs = docs(&prost.comments, &format!("Handles the rpc `{}`.", prost.proto_name)),
                body = body(&format!("async move {{ ::core::mem::drop({dropped}); Err({root}::Error::unimplemented()) }}")),
            );
            if method.asks_for_affinity() {
                push!(
                    functions,
                    "/// Returns how well this server suits a request of [`{function}`](Self::{link}): higher is
                    /// better. By default, clients do not select a bid of 0. Below 0, the server
                    /// makes no bid. Must not block.
                    fn {name}_affinity(&self, request: &{root}::Request<{affinity_request}>) -> f32 {body}\n",
                    link = function.trim_start_matches("r#"),
                    name = method.name,
                    body = body("let _ = request; -1.0")
                );
            }
        }
        format!(
            "/// The handlers of `{name}`, implemented by your service.
            {docs}{how}#[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            pub trait {name}: ::core::marker::Send + ::core::marker::Sync + 'static {{
                {functions}
            }}\n",
            docs = docs_below(&self.prost.comments),
            how = self.how_to_implement(),
        )
    }

    /// Explains how to implement the trait, which rustc's error messages leave out.
    fn how_to_implement(&self) -> String {
        let name = &self.service.name;
        let root = self.root();
        let Some((_, method, prost)) = self.methods().find(|(_, method, _)| method.is_served()) else {
            return String::new();
        };
        let function = rust_name(&method.name);
        let (request, response) = (&prost.input_type, &prost.output_type);
        let (parameter, result) = match method.kind {
            Kind::Stream => (format!("stream: {root}::ServerStream<{response}, {request}>"), "()"),
            _ => (format!("request: {root}::Request<{request}>"), &response[..]),
        };
        format!(
            "///
            /// Each method that returns a future can be written as an `async fn`:
            ///
            /// ```text
            /// impl {name} for MyService {{
            ///     async fn {function}(&self, {parameter}) -> Result<{result}, {root}::Error> {{
            ///         // ...
            ///     }}
            /// }}
            /// ```
            ///
            /// Handlers run concurrently, on any thread, for the lifetime of the server. The
            /// service is therefore shared by reference, and must be `Send`, `Sync` and `'static`:
            /// it owns its state or holds it in an `Arc`. The futures must be `Send`: they must
            /// not hold an `Rc`, a guard of a `std::sync::Mutex` or the like across an `.await`.\n"
        )
    }

    fn server(&self) -> String {
        let Service { name, constant, .. } = self.service;
        let root = self.root();
        let Generics { declared, fields, values, .. } = self.generics();
        let default = if self.of.default_runtime {
            format!(
                "/// Creates a server on the current runtime and serves the methods without topics.
                ///
                /// # Errors
                ///
                /// Returns an error if the bus refuses the subscriptions or there is no current
                /// runtime.
                pub async fn new(
                    bus: impl {root}::bus::Bus,
                    service: impl {name},
                ) -> ::core::result::Result<Self, {root}::Error> {{
                    Self::with_options(bus, service, {root}::ServerOptions::new()).await
                }}

                /// Creates a server with options; see [`new`](Self::new).
                ///
                /// # Errors
                ///
                /// Returns an error if the bus refuses the subscriptions, there is no current
                /// runtime, or an option is invalid.
                pub async fn with_options(
                    bus: impl {root}::bus::Bus,
                    service: impl {name},
                    options: {root}::ServerOptions,
                ) -> ::core::result::Result<Self, {root}::Error> {{
                    Self::with_runtime(bus, {root}::default_runtime()?, service, options).await
                }}\n"
            )
        } else {
            String::new()
        };
        let (handlers, without_topic) = (self.handler_list(), self.without_topic());
        format!(
            "/// A server of `{name}`. Cheap to clone; dropping the last clone shuts it down in the background.
            {docs}#[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            pub struct {name}Server{declared} {{
                server: {root}::Server,
                {fields}
            }}

            #[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            impl {name}Server {{
                {default}

                /// Creates a server on `bus` and `runtime` and serves the methods without topics.
                ///
                /// # Errors
                ///
                /// Returns an error if the bus refuses the subscriptions or an option is invalid.
                pub async fn with_runtime(
                    bus: impl {root}::bus::Bus,
                    runtime: impl {root}::Runtime,
                    service: impl {name},
                    options: {root}::ServerOptions,
                ) -> ::core::result::Result<Self, {root}::Error> {{
                    let handlers = {handlers};
                    let server = {root}::Server::new(bus, runtime, handlers, options)?;
                    server.register(&[{without_topic}], &[]).await?;
                    Ok(Self {{ server, {values} }})
                }}

                {typed}

                {registrations}

                {publications}

                /// Returns the underlying untyped server.
                pub fn server(&self) -> &{root}::Server {{
                    &self.server
                }}

                /// Shuts the server down after it has finished the requests that it accepted; see
                /// [`{root}::Server::shutdown`].
                pub async fn shutdown(&self) {{
                    self.server.shutdown().await;
                }}

                /// Stops the server at once; see [`{root}::Server::kill`].
                pub fn kill(&self) {{
                    self.server.kill();
                }}
            }}

            {common}",
            docs = docs_below(&self.prost.comments),
            typed = self.typed("Server", "server"),
            registrations = self.registrations(constant),
            publications = self.publications(),
            common = self.common("Server", "server"),
        )
    }

    fn handler_list(&self) -> String {
        let Service { name, constant, .. } = self.service;
        let root = self.root();
        let mut list = format!("{root}::Handlers::new(&{constant}, service)");
        for (index, method, _) in self.methods().filter(|(_, method, _)| method.is_served()) {
            let function = rust_name(&method.name);
            let (kind, parameter) = match method.kind {
                Kind::Stream => ("stream", "stream"),
                _ => ("unary", "request"),
            };
            // Named by the trait, since method lookup would find a method of `Arc` first.
            let handler = format!(
                "|service, {parameter}| async move {{ {name}::{function}(&*service, {parameter}).await }}"
            );
            if method.asks_for_affinity() {
                push!(
                    list,
                    ".{kind}_with_affinity(
                        &{constant}.methods[{index}],
                        {handler},
                        {name}::{}_affinity,
                    )",
                    method.name
                );
            } else {
                push!(list, ".{kind}(&{constant}.methods[{index}], {handler})");
            }
        }
        list
    }

    fn without_topic(&self) -> String {
        let constant = &self.service.constant;
        let methods = self.methods().filter(|(_, method, _)| method.is_served() && method.topic.is_empty());
        methods.map(|(index, ..)| format!("&{constant}.methods[{index}], ")).collect()
    }

    fn registrations(&self, constant: &str) -> String {
        let mut registrations = String::new();
        let with_topics =
            self.methods().filter(|(_, method, _)| method.is_served() && !method.topic.is_empty());
        for (index, method, _) in with_topics {
            registrations += &self.registration(
                &format!("`{}`", method.wire),
                &format!("{}_topic", method.name),
                &method.topic,
                &format!("&{constant}.methods[{index}]"),
            );
        }
        for (group, methods) in self.service.groups() {
            let list: String =
                methods.iter().map(|(index, _)| format!("&{constant}.methods[{index}], ")).collect();
            registrations += &self.registration(
                &format!("the methods of the group `{group}` together"),
                &format!("all_{group}_topics"),
                &methods[0].1.topic,
                &list,
            );
        }
        registrations
    }

    fn publications(&self) -> String {
        let (root, constant) = (self.root(), &self.service.constant);
        let mut publications = String::new();
        for (index, method, prost) in self.methods().filter(|(_, method, _)| !method.is_served()) {
            let (parameters, topic) = topic_parameters(&method.topic);
            push!(
                publications,
                "{docs}{deprecated}pub fn publish_{name}(&self, {parameters} update: &{update}) -> {root}::Publish<'_> {{
                    self.server.publish(&{constant}.methods[{index}], &[{topic}], update)
                }}\n",
                docs = docs(
                    &prost.comments,
                    &format!("Publishes an update to the subscribers of `{}`.", prost.proto_name)
                ),
                deprecated = deprecation(method),
                name = method.name,
                update = self.message(&prost.output_type),
            );
        }
        publications
    }

    fn registration(&self, described: &str, name: &str, topic: &[TopicParameter], methods: &str) -> String {
        let root = self.root();
        let (parameters, topic) = topic_parameters(topic);
        format!(
            "/// Starts serving {described} for a topic; see [`{root}::Server::register`].
            ///
            /// # Errors
            ///
            /// Returns an error if the topic is already registered, the topic cannot be part of a
            /// channel name, the server is closed, or the bus refuses the subscription.
            pub async fn register_{name}(&self, {parameters}) -> ::core::result::Result<(), {root}::Error> {{
                self.server.register(&[{methods}], &[{topic}]).await
            }}

            /// Stops serving {described} for a topic; see [`{root}::Server::deregister`].
            ///
            /// # Errors
            ///
            /// Returns an error if the topic was not registered with `register_{name}`.
            pub async fn deregister_{name}(&self, {parameters}) -> ::core::result::Result<(), {root}::Error> {{
                self.server.deregister(&[{methods}], &[{topic}]).await
            }}\n"
        )
    }

    fn generics(&self) -> Generics {
        let names = self.service.type_parameters();
        if names.is_empty() {
            return Generics::default();
        }
        let each = |make: &dyn Fn(&str) -> String| names.iter().map(|name| make(name)).collect::<String>();
        Generics {
            declared: format!("<{}>", each(&|name| format!("{name}: ?::core::marker::Sized = str,"))),
            used: format!("<{}>", each(&|name| format!("{name},"))),
            bounds: each(&|name| format!("{name}: ::core::convert::AsRef<str> + ?::core::marker::Sized,")),
            fields: format!(
                "topics: ::core::marker::PhantomData<fn({})>,",
                each(&|name| format!("&{name},"))
            ),
            values: "topics: ::core::marker::PhantomData,".into(),
        }
    }
}

/// The type parameters of typed topics, as written in each place.
#[derive(Default)]
struct Generics {
    /// In the declaration of the type.
    declared: String,
    /// In a path to the type.
    used: String,
    /// In the header of an impl.
    bounds: String,
    /// The declaration of the field that uses the parameters.
    fields: String,
    /// The value of that field.
    values: String,
}

/// Returns the topic parameters of a function, and the list of strings built from them.
fn topic_parameters(topic: &[TopicParameter]) -> (String, String) {
    let mut parameters = String::new();
    let mut list = String::new();
    for parameter in topic {
        let name = rust_name(&parameter.name);
        match &parameter.typed {
            Some(typed) => push!(parameters, "{name}: &{typed},"),
            None => push!(parameters, "{name}: impl ::core::convert::AsRef<str>,"),
        }
        push!(list, "{name}.as_ref(),");
    }
    (parameters, list)
}

/// Returns the docs of a client's method whose rpc has no comment.
fn default_client_docs(method: &Method, rpc: &str) -> String {
    match method.kind {
        Kind::Unary => format!("Calls the rpc `{rpc}`."),
        Kind::Multi => format!("Calls the rpc `{rpc}`, which every server answers."),
        Kind::Stream => format!("Opens a stream with the rpc `{rpc}`."),
        Kind::Subscription => format!("Subscribes to the updates of the rpc `{rpc}`."),
    }
}

/// Returns the attribute for the client methods of a deprecated rpc. Handlers get none, since
/// servers must still implement them.
fn deprecation(method: &Method) -> &'static str {
    if method.deprecated { "#[deprecated]\n" } else { "" }
}

/// Returns the comment of an rpc as a doc comment, or `otherwise` if it has none.
fn docs(comments: &Comments, otherwise: &str) -> String {
    match doc_comment(comments) {
        docs if docs.is_empty() => format!("/// {otherwise}\n"),
        docs => docs,
    }
}

/// Returns the comment of a service as a doc comment, to follow the first line of the docs of a
/// type.
fn docs_below(comments: &Comments) -> String {
    match doc_comment(comments) {
        docs if docs.is_empty() => docs,
        docs => format!("///\n{docs}"),
    }
}

fn doc_comment(comments: &Comments) -> String {
    let mut docs = String::new();
    Comments { leading_detached: Vec::new(), ..comments.clone() }.append_with_indent(0, &mut docs);
    docs
}

/// Appends formatted text to a string.
macro_rules! push {
    ($to:expr, $($format:tt)*) => {
        write!($to, $($format)*).expect("writing to a string succeeds")
    };
}
use push;
