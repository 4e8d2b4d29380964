//! Services and methods, as generated code describes them.

use std::sync::{Arc, OnceLock};

use psrpc_engine::Route;
use psrpc_engine::proto::{ErrorCode, MethodProperties};

use crate::Error;

/// A service: its name on the wire and its methods.
#[derive(Debug)]
pub struct Service {
    /// The name on the wire.
    pub name: &'static str,
    /// Its methods; each knows its own index in here.
    pub methods: &'static [Method],
}

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    /// Its index in the methods of its service.
    pub index: usize,
    /// The name on the wire.
    pub name: &'static str,
    /// How its calls are routed.
    pub properties: MethodProperties,
}

/// Routes of the methods of a service, worked out once where they have no topic.
#[derive(Clone)]
pub(crate) struct Routes {
    service: &'static Service,
    without_topic: Arc<[OnceLock<Route>]>,
}

impl Routes {
    pub(crate) fn new(service: &'static Service) -> Self {
        let without_topic = service.methods.iter().map(|_| OnceLock::new()).collect();
        Self { service, without_topic }
    }

    pub(crate) fn service(&self) -> &'static Service {
        self.service
    }

    /// The route of a method on a topic.
    ///
    /// # Errors
    ///
    /// `invalid_argument` when the method is not of this service, or the topic cannot be carried.
    pub(crate) fn route(&self, method: &Method, topic: &[&str]) -> Result<Route, Error> {
        if self.service.methods.get(method.index).is_none_or(|own| own.name != method.name) {
            let text = format!("{} is not a method of {}", method.name, self.service.name);
            return Err(Error::new(ErrorCode::InvalidArgument, text));
        }
        let make = || Route::new(self.service.name, method.name, method.properties, topic);
        if !topic.is_empty() {
            return Ok(make()?);
        }
        let known = &self.without_topic[method.index];
        match known.get() {
            Some(route) => Ok(route.clone()),
            None => {
                let route = make()?;
                Ok(known.get_or_init(|| route).clone())
            }
        }
    }
}
