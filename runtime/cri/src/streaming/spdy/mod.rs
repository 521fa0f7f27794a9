//! The server side of SPDY/3.1 over an upgraded HTTP/1.1 connection: as much of
//! the draft as the streaming protocols of Kubernetes use, and nothing pushed.

mod connection;
mod frame;
mod headers;
mod stream;
mod window;

pub use connection::Connection;
pub use headers::value;
pub use stream::{Stream, StreamReader, StreamWriter};
