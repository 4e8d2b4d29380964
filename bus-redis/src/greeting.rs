//! Greetings: what a server says unasked to a client that connects, before it hangs up.
//!
//! Redis refuses a client that is one too many, or that is not allowed to connect, with one line,
//! and closes the connection. A client that writes at once may see nothing but a reset connection.

use std::io;

/// How many bytes of a greeting are read.
const LONGEST: usize = 1024;

/// Connects, and returns the error that the server greets with; `None` if it says something else,
/// or nothing.
pub(crate) async fn error(host: &str, port: u16, is_tokio: bool) -> Option<String> {
    let line = match is_tokio {
        #[cfg(feature = "tokio")]
        true => tokio_line(host, port).await,
        #[cfg(feature = "smol")]
        false => smol_line(host, port).await,
        #[cfg(not(all(feature = "tokio", feature = "smol")))]
        _ => Err(io::ErrorKind::Unsupported.into()),
    };
    let line = String::from_utf8(line.ok()?).ok()?;
    let error = line.lines().next()?.strip_prefix('-')?.trim();
    (!error.is_empty()).then(|| error.to_owned())
}

/// Reads until the end of the line or of the connection.
#[cfg(feature = "tokio")]
async fn tokio_line(host: &str, port: u16) -> io::Result<Vec<u8>> {
    let stream = tokio::net::TcpStream::connect((host, port)).await?;
    let mut line = Vec::new();
    let mut buffer = [0; LONGEST];
    while line.len() < LONGEST && !line.contains(&b'\n') {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => line.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(line)
}

/// Reads until the end of the line or of the connection.
#[cfg(feature = "smol")]
async fn smol_line(host: &str, port: u16) -> io::Result<Vec<u8>> {
    use smol::io::AsyncReadExt;

    let mut stream = smol::net::TcpStream::connect((host, port)).await?;
    let mut line = Vec::new();
    let mut buffer = [0; LONGEST];
    while line.len() < LONGEST && !line.contains(&b'\n') {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => line.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(line)
}
