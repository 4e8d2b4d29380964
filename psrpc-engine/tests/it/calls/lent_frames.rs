//! Tests of frames that `poll_publish` lends to the bus.

use super::*;

#[test]
fn a_frame_that_is_lent_but_not_taken_is_lent_again() {
    let mut client = Driven::client();
    client.engine.call(client.now, queue_call()).unwrap();
    client.engine.call(client.now, single_call()).unwrap();
    let lent = |client: &mut Client| {
        let outgoing = client.poll_publish().expect("the bus has room");
        (outgoing.token(), outgoing.channel().clone(), outgoing.frame().clone())
    };
    let first = lent(&mut client.engine);
    assert_eq!(first.1.legacy(), "Hats|Fit|REQ");
    assert_eq!(lent(&mut client.engine), first);
    client.engine.handle_full();
    assert!(client.engine.poll_publish().is_none(), "the bus has no room");
    client.engine.handle_room();
    assert_eq!(lent(&mut client.engine), first);
    assert_eq!(client.engine.counters().published, 0);
    assert_eq!(next_published(&mut client.engine), Some(first));
    assert_eq!(client.engine.counters().published, 1);
    assert_eq!(next_published(&mut client.engine).unwrap().1.legacy(), "Hats|OwnerFit|REQ");
    assert!(client.engine.poll_publish().is_none(), "each is taken once");
}

#[test]
fn a_request_is_sent_once_its_frame_is_taken() {
    for taken in [false, true] {
        let mut client = Driven::client();
        client.engine.call(client.now, Call { timeout: Some(ms(50)), ..single_call() }).unwrap();
        let outgoing = client.engine.poll_publish().expect("the request");
        if taken {
            let _ = outgoing.take();
        }
        client.advance_to(ms(50));
        let failure = client.failure();
        assert_eq!((failure.reason, failure.evidence.unsent), (Reason::TimedOut, !taken));
        assert!(client.frames().is_empty(), "a request whose frame was not taken is withdrawn");
        assert_eq!(client.engine.counters().get(Reason::Withdrawn), u64::from(!taken));
    }
}
