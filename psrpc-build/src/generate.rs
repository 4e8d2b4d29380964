//! Generating: from the model to Rust.

use std::fmt::Write;

use prost_build::{Comments, ServiceGenerator};
use psrpc_proto::Routing;

use crate::model::{Kind, Method, Service, Services, TopicParameter, rust_name};

/// Writes the Rust of each service behind its package's messages.
pub(crate) struct Generator {
    pub(crate) services: Services,
    /// The path of the psrpc crate.
    pub(crate) root: String,
    /// Whether that crate has a default runtime.
    pub(crate) default_runtime: bool,
    /// Whether a handler that is missing answers that the rpc is not implemented.
    pub(crate) unimplemented: bool,
    /// Whether there are clients.
    pub(crate) client: bool,
    /// Whether there are servers.
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

    /// Adds the attributes for lints to what prost has generated so far. Only items at the
    /// beginning of a line take one: what is in a module is indented, and the impls in it that
    /// are not have nothing that a lint is about.
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

/// Generated code is not there to be improved by hand.
const LINTS: &str = "#[allow(clippy::all, clippy::pedantic)]";

/// One service: the model of it, and what prost knows of its messages.
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

    /// The path of a message, also where a type parameter has its name.
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
            "/// What clients and servers of `{name}` agree on.
            #[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            pub static {constant}: {root}::Service =
                {root}::Service {{ name: {wire:?}, methods: &[{methods}] }};\n"
        )
    }

    /// What a client's function gives, and how it comes about.
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

    /// The parameter for the request of a client's function, if it has one.
    fn request_parameter(&self, method: &Method, prost: &prost_build::Method) -> String {
        match method.kind {
            Kind::Unary | Kind::Multi => format!("request: {}", self.message(&prost.input_type)),
            Kind::Stream | Kind::Subscription => String::new(),
        }
    }

    /// The doc comment of a client's function.
    fn client_docs(&self, method: &Method, prost: &prost_build::Method) -> String {
        let mut docs = docs(&prost.comments, &what_clients_do(method, &prost.proto_name));
        if self.service.shares_queue(method) {
            push!(
                docs,
                "///
                /// On NATS, servers of this service may take updates from the subscribers, and
                /// subscribers may take requests from the servers. Both are then lost. To avoid it,
                /// see [`Subscription`]({root}::Subscription#on-nats).\n",
                root = self.root()
            );
        }
        docs
    }

    /// The trait of what clients do, and that the client does it.
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
            "/// What can be asked of `{name}`. [`{name}Client`] does it, and in unit tests so may something else: whatever it
            /// gives back can be made without a client.
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
                "/// A client on the runtime that this is called on, ready to call.
                ///
                /// # Errors
                ///
                /// When the bus refuses it, or there is no runtime.
                pub async fn new(bus: impl {root}::bus::Bus) -> ::core::result::Result<Self, {root}::Error> {{
                    Self::with_options(bus, {root}::ClientOptions::new()).await
                }}

                /// As [`new`](Self::new), with options.
                ///
                /// # Errors
                ///
                /// When the bus refuses it, there is no runtime, or an option is not valid.
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

                /// A client on `bus` and `runtime`, ready to call.
                ///
                /// # Errors
                ///
                /// When the bus refuses it, or an option is not valid.
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

                /// The client beneath, which any service has.
                pub fn client(&self) -> &{root}::Client {{
                    &self.client
                }}

                /// Closes the client: its calls fail at once, and so do later ones.
                pub fn close(&self) {{
                    self.client.close();
                }}

                /// Closes the client, and waits until its servers can know; see
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

    /// The way from topics that are strings to such that have types. What stands before it is for
    /// strings alone, so that nobody has to say so; what stands behind it is for all.
    fn typed(&self, kind: &str, field: &str) -> String {
        let name = &self.service.name;
        let Generics { used, bounds, values, .. } = self.generics();
        if used.is_empty() {
            return String::new();
        }
        format!(
            "/// The same with types for its typed topics, in the order of the .proto.
            pub fn with_topic_types<{bounds}>(self) -> {name}{kind}{used} {{
                {name}{kind} {{ {field}: self.{field}, {values} }}
            }}
            }}

            #[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            impl<{bounds}> {name}{kind}{used} {{"
        )
    }

    /// What a client and a server are alike in: they can be cloned and shown.
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
            let (parameter, result, asked) = match method.kind {
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
                docs = docs(&prost.comments, &format!("The rpc `{}`.", prost.proto_name)),
                body = body(&format!("async move {{ ::core::mem::drop({dropped}); Err({root}::Error::unimplemented()) }}")),
            );
            if method.asks_for_affinity() {
                push!(
                    functions,
                    "/// How well this server suits a request of [`{function}`](Self::{link}): more is better, 0 is
                    /// not available, below 0 makes no bid. It must not block.
                    fn {name}_affinity(&self, request: &{root}::Request<{asked}>) -> f32 {body}\n",
                    link = function.trim_start_matches("r#"),
                    name = method.name,
                    body = body("let _ = request; -1.0")
                );
            }
        }
        format!(
            "/// What a server of `{name}` does.
            {docs}{how}#[allow(dead_code, non_snake_case, clippy::all, clippy::pedantic)]
            pub trait {name}: ::core::marker::Send + ::core::marker::Sync + 'static {{
                {functions}
            }}\n",
            docs = docs_below(&self.prost.comments),
            how = self.how_to_implement(),
        )
    }

    /// What rustc does not say when it reports that the trait, or a part of it, is not implemented.
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
            /// Each function that gives a future can be written as an `async fn`:
            ///
            /// ```text
            /// impl {name} for MyService {{
            ///     async fn {function}(&self, {parameter}) -> Result<{result}, {root}::Error> {{
            ///         // ...
            ///     }}
            /// }}
            /// ```
            ///
            /// Requests run at the same time, on any thread, for as long as the server does. So the
            /// service is shared by reference, is `Send`, `Sync` and `'static`, which is to say
            /// that it owns its state or has it in an `Arc`, and the futures are `Send`: they hold
            /// nothing across an `.await` that is tied to a thread, such as an `Rc` or the guard of
            /// a `std::sync::Mutex`.\n"
        )
    }

    fn server(&self) -> String {
        let Service { name, constant, .. } = self.service;
        let root = self.root();
        let Generics { declared, fields, values, .. } = self.generics();
        let default = if self.of.default_runtime {
            format!(
                "/// A server on the runtime that this is called on. Its methods without topics are served.
                ///
                /// # Errors
                ///
                /// When the bus refuses it, or there is no runtime.
                pub async fn new(
                    bus: impl {root}::bus::Bus,
                    service: impl {name},
                ) -> ::core::result::Result<Self, {root}::Error> {{
                    Self::with_options(bus, service, {root}::ServerOptions::new()).await
                }}

                /// As [`new`](Self::new), with options.
                ///
                /// # Errors
                ///
                /// When the bus refuses it, there is no runtime, or an option is not valid.
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

                /// A server on `bus` and `runtime`. Its methods without topics are served.
                ///
                /// # Errors
                ///
                /// When the bus refuses it, or an option is not valid.
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

                /// The server beneath, which any service has.
                pub fn server(&self) -> &{root}::Server {{
                    &self.server
                }}

                /// Shuts the server down without losing what it has accepted; see
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
            // By the trait's name, since a method of the `Arc` would come first.
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
                    &format!("Publishes an update to those who subscribe to `{}`.", prost.proto_name)
                ),
                deprecated = deprecation(method),
                name = method.name,
                update = self.message(&prost.output_type),
            );
        }
        publications
    }

    fn registration(&self, what: &str, name: &str, topic: &[TopicParameter], methods: &str) -> String {
        let root = self.root();
        let (parameters, topic) = topic_parameters(topic);
        format!(
            "/// Serves {what} on a topic; see [`{root}::Server::register`].
            ///
            /// # Errors
            ///
            /// When it is served already on that topic, the topic cannot be carried, the server is
            /// closed, or the bus refuses it.
            pub async fn register_{name}(&self, {parameters}) -> ::core::result::Result<(), {root}::Error> {{
                self.server.register(&[{methods}], &[{topic}]).await
            }}

            /// Stops to serve {what} on a topic; see [`{root}::Server::deregister`].
            ///
            /// # Errors
            ///
            /// When it is not registered, in this way, for that topic.
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

/// The type parameters of typed topics, as they are written in each place.
#[derive(Default)]
struct Generics {
    /// Where the type is declared.
    declared: String,
    /// Where the type is named.
    used: String,
    /// Where an impl introduces them.
    bounds: String,
    /// The field that uses them.
    fields: String,
    /// The value of that field.
    values: String,
}

/// The parameters of a function for the topic, and the list of strings made of them.
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

/// What a client's function does, for where the .proto does not say it.
fn what_clients_do(method: &Method, rpc: &str) -> String {
    match method.kind {
        Kind::Unary => format!("Calls the rpc `{rpc}`."),
        Kind::Multi => format!("Calls the rpc `{rpc}`, which every server answers."),
        Kind::Stream => format!("Opens a stream with the rpc `{rpc}`."),
        Kind::Subscription => format!("Subscribes to the updates of the rpc `{rpc}`."),
    }
}

/// The attribute of a function that a deprecated rpc is called by. Handlers have none: servers must
/// still have them.
fn deprecation(method: &Method) -> &'static str {
    if method.deprecated { "#[deprecated]\n" } else { "" }
}

/// The comment of an rpc as a doc comment, or what to say when there is none.
fn docs(comments: &Comments, otherwise: &str) -> String {
    match doc_comment(comments) {
        docs if docs.is_empty() => format!("/// {otherwise}\n"),
        docs => docs,
    }
}

/// The comment of a service as a doc comment, to stand below what is said of the type.
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
        write!($to, $($format)*).expect("a string takes all")
    };
}
use push;
