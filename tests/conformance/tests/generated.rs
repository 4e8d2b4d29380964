//! Checks that generated code compiles and has the expected names.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use psrpc::{
    Call, ClientOptions, Error, ErrorCode, MultiCall, OpenStream, Request, Response, Responses,
    ServerOptions, ServerStream, Subscribe, Subscription,
};
use psrpc_bus_local::LocalBus;
use psrpc_conformance::runtime::{Host, Solo};

#[allow(missing_docs, reason = "generated from messages without comments")]
mod hats {
    pub mod v1 {
        psrpc::include_proto!("hats.v1");
    }
    pub mod parts {
        psrpc::include_proto!("hats.parts");
    }
}

#[allow(missing_docs, reason = "generated from messages without comments")]
mod names {
    psrpc::include_proto!("names.v1");
}

#[allow(missing_docs, reason = "generated from messages without comments")]
mod odd {
    psrpc::include_proto!("async.type");
}

use hats::parts::Brim;
use hats::v1::{HatAsk, HatReply, Hats, HatsApi, HatsClient, HatsServer};

/// A custom topic type.
struct Owner(&'static str);

impl AsRef<str> for Owner {
    fn as_ref(&self) -> &str {
        self.0
    }
}

struct Hatter;

fn made(text: &str) -> Result<HatReply, Error> {
    Ok(HatReply { text: text.to_owned() })
}

impl Hats for Hatter {
    async fn fit(&self, request: Request<HatAsk>) -> Result<HatReply, Error> {
        made(&request.name)
    }

    async fn make_hat_v1(&self, request: Request<HatAsk>) -> Result<HatReply, Error> {
        made(&request.name)
    }

    fn make_hat_v1_affinity(&self, _: &Request<HatAsk>) -> f32 {
        1.0
    }

    async fn rack_fit(&self, _: Request<HatAsk>) -> Result<(), Error> {
        Ok(())
    }

    async fn rack_make(&self, request: Request<Brim>) -> Result<HatReply, Error> {
        made(&request.width.to_string())
    }

    fn rack_make_affinity(&self, _: &Request<Brim>) -> f32 {
        1.0
    }

    async fn owner_fit(&self, request: Request<HatAsk>) -> Result<HatReply, Error> {
        made(&format!("{} of {}", request.name, request.topic()[0]))
    }

    async fn list_sip_trunk(&self, _: Request<HatAsk>) -> Result<HatReply, Error> {
        Err(Error::new(ErrorCode::Unimplemented, "not yet"))
    }

    async fn census(&self, request: Request<HatAsk>) -> Result<HatReply, Error> {
        made(&request.name)
    }

    async fn rack_census(&self, request: Request<HatAsk>) -> Result<HatReply, Error> {
        made(&format!("{} in {}", request.name, request.topic()[0]))
    }

    async fn parade(&self, stream: ServerStream<HatReply, HatAsk>) -> Result<(), Error> {
        while let Some(ask) = stream.next().await {
            stream.send(HatReply { text: format!("{} passes", ask.name) }).await?;
        }
        Ok(())
    }

    async fn owner_parade(&self, stream: ServerStream<HatReply, HatAsk>) -> Result<(), Error> {
        let text = format!("{} of {}", stream.metadata().get("band").unwrap(), stream.topic()[0]);
        stream.send(HatReply { text }).await
    }

    fn owner_parade_affinity(&self, opening: &Request<()>) -> f32 {
        if opening.metadata().get("band").is_some() { 1.0 } else { -1.0 }
    }
}

fn run<F: Future<Output = Result<(), Error>>>(test: impl FnOnce(LocalBus, Solo) -> F) {
    let solo = Solo::new();
    let test = test(LocalBus::new(), solo.clone());
    solo.block_on(Box::pin(async { test.await.unwrap() }));
}

#[test]
fn methods_of_every_kind_are_called_by_their_names() {
    run(|bus, solo| async move {
        let server =
            HatsServer::with_runtime(bus.clone(), solo.clone(), Hatter, ServerOptions::new()).await?;
        let server = server.with_topic_types::<Owner>();
        server.register_all_rack_topics("aisle", "type").await?;
        server.register_owner_fit_topic(&Owner("Ann")).await?;
        server.register_list_sip_trunk_topic("x").await?;
        let client = HatsClient::with_runtime(bus, solo, ClientOptions::new()).await?;
        let client = client.with_topic_types::<Owner>();
        let ask = || HatAsk { name: "fez".into() };
        assert_eq!(client.fit(ask()).await?.text, "fez");
        assert_eq!(client.make_hat_v1(ask()).await?.text, "fez");
        client.rack_fit("aisle", "type", ask()).await?;
        assert_eq!(client.rack_make("aisle", "type", Brim { width: 7 }).await?.text, "7");
        assert_eq!(client.owner_fit(&Owner("Ann"), ask()).await?.text, "fez of Ann");
        let error = client.list_sip_trunk("x", ask()).await.unwrap_err();
        assert_eq!(error.code(), &ErrorCode::Unimplemented);
        server.deregister_owner_fit_topic(&Owner("Ann")).await
    });
}

#[test]
fn every_server_is_asked_by_the_name_of_a_multi_method() {
    run(|bus, solo| async move {
        let server =
            HatsServer::with_runtime(bus.clone(), solo.clone(), Hatter, ServerOptions::new()).await?;
        server.register_rack_census_topic("aisle", "type").await?;
        let client = HatsClient::with_runtime(bus, solo, ClientOptions::new()).await?;
        let ask = || HatAsk { name: "fez".into() };
        let answer = client.census(ask()).responses(1).await?.next().await.unwrap()?;
        assert_eq!((answer.server_id(), answer.text.as_str()), (server.server().id(), "fez"));
        let answer = client.rack_census("aisle", "type", ask()).responses(1).await?.next().await.unwrap()?;
        assert_eq!(answer.text, "fez in aisle");
        Ok(())
    });
}

#[test]
fn streams_are_opened_by_the_names_of_their_methods() {
    run(|bus, solo| async move {
        let server =
            HatsServer::with_runtime(bus.clone(), solo.clone(), Hatter, ServerOptions::new()).await?;
        server.register_owner_parade_topic("Ann").await?;
        let client = HatsClient::with_runtime(bus, solo, ClientOptions::new()).await?;
        let stream = client.parade().await?;
        stream.send(HatAsk { name: "fez".into() }).await?;
        assert_eq!(stream.next().await.unwrap().text, "fez passes");
        let stream = client.owner_parade("Ann").metadata("band", "brass").await?;
        assert_eq!(stream.next().await.unwrap().text, "brass of Ann");
        assert!(stream.closed().await.is_stream_closed());
        let refused = client.owner_parade("Ann").await.unwrap_err();
        assert!(refused.is_no_response());
        Ok(())
    });
}

#[test]
fn updates_are_published_and_subscribed_to_by_the_names_of_their_methods() {
    run(|bus, solo| async move {
        let server =
            HatsServer::with_runtime(bus.clone(), solo.clone(), Hatter, ServerOptions::new()).await?;
        let client = HatsClient::with_runtime(bus, solo, ClientOptions::new()).await?;
        let mut rumours = client.subscribe_rumour().await?;
        let mut bulletins = client.subscribe_bulletin("harbour").await?;
        server.publish_rumour(&HatReply { text: "psst".into() }).await?;
        server.publish_bulletin("harbour", &HatReply { text: "tide".into() }).await?;
        assert_eq!(rumours.next().await.unwrap()?.text, "psst");
        assert_eq!(bulletins.next().await.unwrap()?.text, "tide");
        Ok(())
    });
}

/// User code that calls a service through its trait.
async fn dress(shop: &dyn HatsApi) -> Result<String, Error> {
    let hat = shop.fit(HatAsk { name: "fez".into() }).metadata("shop", "corner").await?;
    let mut others = shop.census(HatAsk::default()).responses(1).await?;
    let other = others.next().await.ok_or_else(Error::no_response)??;
    let rumour = shop.subscribe_rumour().await?.next().await.ok_or_else(Error::eof)??;
    Ok(format!("{}, {} of {}, {}", hat.text, other.text, other.server_id(), rumour.text))
}

#[test]
fn a_fake_takes_the_place_of_a_client() {
    struct Fake;

    fn reply(text: &str) -> HatReply {
        HatReply { text: text.into() }
    }

    impl HatsApi for Fake {
        fn fit(&self, request: HatAsk) -> Call<HatAsk, HatReply> {
            Call::fake(async move { made(&request.name) })
        }
        fn census(&self, _: HatAsk) -> MultiCall<HatAsk, HatReply> {
            MultiCall::fake(Ok(Responses::new(One(Some(Ok(Response::new("elm", reply("bowler"))))))))
        }
        fn subscribe_rumour(&self) -> Subscribe<HatReply> {
            Subscribe::fake(Ok(Subscription::fake(One(Some(Ok(reply("psst")))))))
        }
        fn make_hat_v1(&self, _: HatAsk) -> Call<HatAsk, HatReply> {
            unused()
        }
        fn rack_fit(&self, _: &str, _: &str, _: HatAsk) -> Call<HatAsk, ()> {
            unused()
        }
        fn rack_make(&self, _: &str, _: &str, _: Brim) -> Call<Brim, HatReply> {
            unused()
        }
        fn owner_fit(&self, _: &str, _: HatAsk) -> Call<HatAsk, HatReply> {
            unused()
        }
        fn list_sip_trunk(&self, _: &str, _: HatAsk) -> Call<HatAsk, HatReply> {
            unused()
        }
        fn rack_census(&self, _: &str, _: &str, _: HatAsk) -> MultiCall<HatAsk, HatReply> {
            MultiCall::fake(Err(Error::unimplemented()))
        }
        fn parade(&self) -> OpenStream<HatAsk, HatReply> {
            OpenStream::fake(Err(Error::unimplemented()))
        }
        fn owner_parade(&self, _: &str) -> OpenStream<HatAsk, HatReply> {
            OpenStream::fake(Err(Error::unimplemented()))
        }
        fn subscribe_bulletin(&self, _: &str) -> Subscribe<HatReply> {
            Subscribe::fake(Err(Error::unimplemented()))
        }
    }

    fn unused<Req, Res: Send + 'static>() -> Call<Req, Res> {
        Call::fake(async { Err(Error::unimplemented()) })
    }

    Solo::new().block_on(Box::pin(async {
        assert_eq!(dress(&Fake).await.unwrap(), "fez, bowler of elm, psst");
    }));
}

/// A stream of a single item.
struct One<T>(Option<T>);

impl<T: Unpin> Stream for One<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(self.0.take())
    }
}

#[test]
fn typed_topics_are_strings_unless_somebody_says_otherwise() {
    run(|bus, solo| async move {
        let client = HatsClient::with_runtime(
            bus,
            solo,
            ClientOptions::new().selection_timeout(std::time::Duration::ZERO),
        )
        .await?;
        let nobody = client.owner_fit("Ann", HatAsk::default()).timeout(std::time::Duration::from_millis(1));
        assert!(nobody.await.unwrap_err().is_no_response());
        Ok(())
    });
}

#[test]
fn a_service_without_methods_can_be_served() {
    struct Nothing;
    impl hats::v1::Empty for Nothing {}
    run(|bus, solo| async move {
        let server = hats::v1::EmptyServer::with_runtime(bus, solo, Nothing, ServerOptions::new()).await?;
        server.shutdown().await;
        Ok(())
    });
}

#[test]
fn names_that_mean_something_in_rust_are_called_as_raw_names() {
    struct Odd;
    macro_rules! echo {
        ($($function:ident)*) => {
            $(async fn $function(&self, request: Request<odd::Send>) -> Result<odd::Send, Error> {
                Ok(request.into_message())
            })*
        }
    }
    impl odd::Same for Odd {
        echo!(into try_into as_ref to_owned drop r#gen);

        async fn same(&self, _: Request<odd::Result>) -> Result<odd::Option, Error> {
            Ok(odd::Option {})
        }
        async fn r#match(&self, _: Request<odd::Send>) -> Result<odd::Clone, Error> {
            Ok(odd::Clone {})
        }
        async fn r#box(&self, request: Request<odd::Result>) -> Result<odd::Result, Error> {
            Ok(request.into_message())
        }
        fn box_affinity(&self, _: &Request<odd::Result>) -> f32 {
            1.0
        }
    }
    run(|bus, solo| async move {
        let server =
            odd::SameServer::with_runtime(bus.clone(), solo.clone(), Odd, ServerOptions::new()).await?;
        server.register_box_topic("a", "b", "c").await?;
        let client = odd::SameClient::with_runtime(bus, solo, ClientOptions::new()).await?;
        client.same(odd::Result::default()).await?;
        client.r#match(odd::Send {}).await?;
        let text = odd::Result { text: "boxed".into() };
        assert_eq!(client.r#box("a", "b", "c", text).await?.text, "boxed");
        client.clone().drop(odd::Send {}).await?;
        client.r#gen(odd::Send {}).await?;
        Ok(())
    });
}

#[test]
fn messages_may_have_the_names_of_typed_topics_and_of_their_bounds() {
    struct Typed;
    impl odd::Typed for Typed {
        async fn one(&self, request: Request<odd::Topic>) -> Result<odd::ATopic, Error> {
            Ok(odd::ATopic { text: request.text.clone() })
        }
        async fn two(&self, request: Request<odd::ATopic>) -> Result<odd::Topic, Error> {
            Ok(odd::Topic { text: request.text.clone() })
        }
        async fn three(&self, request: Request<odd::Sized>) -> Result<odd::Sized, Error> {
            Ok(request.into_message())
        }
    }
    run(|bus, solo| async move {
        let server =
            odd::TypedServer::with_runtime(bus.clone(), solo.clone(), Typed, ServerOptions::new()).await?;
        server.register_one_topic("here").await?;
        let client = odd::TypedClient::with_runtime(bus, solo, ClientOptions::new()).await?;
        assert_eq!(client.one("here", odd::Topic { text: "a".into() }).await?.text, "a");
        client.three(odd::Sized {}).await?;
        Ok(())
    });
}

#[test]
fn every_recorded_name_is_a_function() {
    struct Named;
    macro_rules! named {
        ($($function:ident)*) => {
            impl names::Methods for Named {
                $(async fn $function(&self, _: Request<names::N>) -> Result<names::N, Error> {
                    Ok(names::N {})
                })*
            }

            fn call_each_of_them() {
                run(|bus, solo| async move {
                    let options = ServerOptions::new();
                    let server =
                        names::MethodsServer::with_runtime(bus.clone(), solo.clone(), Named, options).await?;
                    let client = names::MethodsClient::with_runtime(bus, solo, ClientOptions::new()).await?;
                    $(client.$function(names::N {}).await?;)*
                    server.shutdown().await;
                    Ok(())
                });
            }
        };
    }
    named! {
        plain lower make_hat_v1 make_hat make_hat_v2 make_2hats_v2 make_2_hats hidden twice trailing trailing2
        double_inside triple_inside http_hat_x screaming_snake mixed_case_name mixed_case_name_2 a_b_c_d a_b x1y2_3z v1
        get_v1beta1_x _9lives upper camel_case
    }
    call_each_of_them();
}
