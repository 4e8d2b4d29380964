//! The check of frames to publish against the limits of their receivers.

use psrpc_proto::{Channel, Frame, FrameLimits, Metadata, Request, Response, Stream, StreamBody};

/// An upper bound on the bytes that a frame adds to its contents: names, ids and lengths.
const OVERHEAD: usize = 64 * 1024;

/// A frame that exceeds a limit of its receivers.
pub(crate) struct TooLarge {
    pub(crate) size: usize,
    pub(crate) unit: &'static str,
    pub(crate) limit: usize,
}

/// Checks that receivers with the same limits would accept a frame.
pub(crate) fn check(frame: &Frame, channel: &Channel, limits: &FrameLimits) -> Result<(), TooLarge> {
    let within = |size, unit, limit| if size > limit { Err(TooLarge { size, unit, limit }) } else { Ok(()) };
    let metadata_within = |metadata: &Metadata| {
        within(metadata.len(), "entries of metadata", limits.metadata_entries)?;
        within(metadata.bytes(), "bytes of metadata", limits.metadata_bytes)
    };
    let content = match frame {
        Frame::Request(Request { metadata, payload, .. }) => {
            metadata_within(metadata)?;
            metadata.bytes() + payload.len()
        }
        Frame::Stream(Stream { body: Some(StreamBody::Open { metadata, .. }), .. }) => {
            metadata_within(metadata)?;
            metadata.bytes()
        }
        Frame::Stream(Stream { body: Some(StreamBody::Message { payload }), .. }) => payload.len(),
        Frame::Stream(Stream { body: Some(StreamBody::Close { code, text }), .. }) => {
            // An empty text is sent as the code.
            2 * code.as_str().len() + text.len()
        }
        Frame::Other(update) => update.type_url.len() + update.value.len(),
        Frame::Response(Response { result: Ok(payload), .. }) => payload.len(),
        Frame::Response(Response { result: Err(error), .. }) => {
            within(error.details.len(), "error details", limits.error_details)?;
            let details = error.details.iter().map(|detail| detail.type_url.len() + detail.value.len());
            error.text.len() + details.sum::<usize>()
        }
        _ => 0,
    };
    // Only a frame near the limit needs its exact length.
    if content + OVERHEAD > limits.frame_bytes {
        within(frame.encode(channel.local()).len(), "bytes of a frame", limits.frame_bytes)?;
    }
    Ok(())
}
