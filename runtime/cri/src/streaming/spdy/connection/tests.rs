//! The connection against a client made of frames.

use super::*;
use crate::streaming::spdy::stream::StreamClosed;
use crate::streaming::spdy::value;
use tokio::io::DuplexStream;

struct Client {
    io: DuplexStream,
    buffer: BytesMut,
    deflater: Deflater,
    inflater: Inflater,
}

impl Client {
    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, stream: u32, kind: &str) {
        let headers = vec![("streamtype".to_owned(), kind.to_owned())];
        let block = self.deflater.block(&headers).unwrap();
        self.send(Frame::SynStream {
            stream,
            fin: false,
            unidirectional: false,
            block,
        })
        .await;
        let Frame::SynReply {
            stream: replied,
            block,
            ..
        } = self.next().await.unwrap()
        else {
            panic!("no reply")
        };
        assert_eq!(replied, stream);
        self.inflater.headers(&block).unwrap();
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

fn pair() -> (Client, Connection, TaskTracker) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let tasks = TaskTracker::new();
    let connection = Connection::serve(server, &tasks).unwrap();
    let client = Client {
        io: client,
        buffer: BytesMut::new(),
        deflater: Deflater::new().unwrap(),
        inflater: Inflater::new(),
    };
    (client, connection, tasks)
}

fn data(stream: u32, fin: bool, text: &'static str) -> Frame {
    Frame::Data {
        stream,
        fin,
        data: Bytes::from_static(text.as_bytes()),
    }
}

#[tokio::test]
async fn half_close_ends_one_direction_only() {
    let (mut client, mut connection, _tasks) = pair();
    client.open(1, "stdin").await;
    let mut stream = connection.accept().await.unwrap();
    assert_eq!(value(&stream.headers, "streamType"), Some("stdin"));
    client.send(data(1, false, "hel")).await;
    client.send(data(1, true, "lo")).await;
    assert_eq!(stream.reader.data().await.unwrap(), "hel");
    assert_eq!(stream.reader.data().await.unwrap(), "lo");
    assert_eq!(stream.reader.data().await, None);
    stream
        .writer
        .send(Bytes::from_static(b"still open"))
        .await
        .unwrap();
    stream.writer.finish().await.unwrap();
    assert_eq!(client.next().await, Some(data(1, false, "still open")));
    assert_eq!(client.next().await, Some(data(1, true, "")));
}

#[tokio::test]
async fn go_away_comes_behind_all_data_and_then_the_end() {
    let (mut client, mut connection, tasks) = pair();
    client.open(1, "error").await;
    let stream = connection.accept().await.unwrap();
    stream
        .writer
        .send(Bytes::from_static(b"status"))
        .await
        .unwrap();
    stream.writer.finish().await.unwrap();
    drop(stream);
    connection.close().await;
    assert_eq!(client.next().await, Some(data(1, false, "status")));
    assert_eq!(client.next().await, Some(data(1, true, "")));
    assert_eq!(
        client.next().await,
        Some(Frame::GoAway {
            last_good: 0,
            status: 0
        })
    );
    assert_eq!(client.next().await, None);
    drop(client);
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn pings_are_answered_and_unknown_streams_reset() {
    let (mut client, _connection, _tasks) = pair();
    client.send(Frame::Ping(1)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(1)));
    client.send(data(9, false, "x")).await;
    assert_eq!(
        client.next().await,
        Some(Frame::RstStream {
            stream: 9,
            status: 2
        })
    );
}

#[tokio::test]
async fn a_client_that_goes_away_ends_every_stream() {
    let (mut client, mut connection, tasks) = pair();
    client.open(1, "stdout").await;
    let mut stream = connection.accept().await.unwrap();
    drop(client);
    assert_eq!(stream.reader.data().await, None);
    connection.gone().cancelled().await;
    assert_eq!(
        stream.writer.send(Bytes::from_static(b"x")).await,
        Err(StreamClosed)
    );
    drop((stream, connection));
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn consumed_bytes_are_reported() {
    let (mut client, mut connection, _tasks) = pair();
    client.open(1, "stdin").await;
    let mut stream = connection.accept().await.unwrap();
    let bytes = Bytes::from(vec![7; 40_000]);
    client
        .send(Frame::Data {
            stream: 1,
            fin: false,
            data: bytes,
        })
        .await;
    assert_eq!(stream.reader.data().await.unwrap().len(), 40_000);
    assert_eq!(
        client.next().await,
        Some(Frame::WindowUpdate {
            stream: 1,
            delta: 40_000
        })
    );
    assert_eq!(
        client.next().await,
        Some(Frame::WindowUpdate {
            stream: 0,
            delta: 40_000
        })
    );
}

#[tokio::test]
async fn a_client_without_windows_receives_everything() {
    let (mut client, mut connection, tasks) = pair();
    client.open(1, "stdout").await;
    let stream = connection.accept().await.unwrap();
    tasks.spawn(async move { stream.writer.send(Bytes::from(vec![1; 300_000])).await });
    let mut received = 0;
    while received < 300_000 {
        let Some(Frame::Data { data, .. }) = client.next().await else {
            panic!("no data")
        };
        received += data.len();
    }
}
