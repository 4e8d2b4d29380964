//! TCP streams of either runtime, for TLS.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes that TLS can run on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to a host, with `TCP_NODELAY`.
pub(crate) async fn connect(host: &str, port: u16, is_tokio: bool) -> io::Result<Box<dyn Stream>> {
    match is_tokio {
        #[cfg(feature = "tokio")]
        true => {
            let stream = tokio::net::TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        #[cfg(feature = "smol")]
        false => {
            let stream = smol::net::TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(of_smol::Adapter(stream)))
        }
        #[cfg(not(all(feature = "tokio", feature = "smol")))]
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(feature = "smol")]
mod of_smol {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use smol::net::TcpStream;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    /// A stream of smol with the traits of tokio, which need no tokio runtime.
    pub(super) struct Adapter(pub(super) TcpStream);

    impl AsyncRead for Adapter {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let read =
                smol::io::AsyncRead::poll_read(Pin::new(&mut self.0), cx, buffer.initialize_unfilled());
            read.map_ok(|count| buffer.advance(count))
        }
    }

    impl AsyncWrite for Adapter {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            smol::io::AsyncWrite::poll_write(Pin::new(&mut self.0), cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            smol::io::AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            smol::io::AsyncWrite::poll_close(Pin::new(&mut self.0), cx)
        }
    }
}
