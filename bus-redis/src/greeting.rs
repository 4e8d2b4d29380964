//! The line that a server sends to a new client before it closes the connection.
//!
//! Redis sends one error line if there are too many clients or the client may not connect, and then
//! closes the connection. A client that writes first may only see a connection reset.

use std::io;

/// The maximum number of bytes to read.
const LONGEST: usize = 1024;

/// Connects and reads the greeting. Returns it if it is an error, without the leading `-`.
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

/// Reads one line, or until the connection closes.
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

/// Reads one line, or until the connection closes.
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
