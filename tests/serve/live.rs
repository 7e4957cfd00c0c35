//! A run that sends while it trains, and records that are no telemetry.

use std::sync::mpsc::channel;

use trainwarden::client::GrpcPublisher;
use trainwarden_ingest::wire::{BatchWriter, FrameWriter};
use trainwarden_ingest::{
    CollectiveRow, LogClock, NO_TIME, NO_U32, NO_U64, NameId, Names, Publisher, Record, Row, SampleRow,
};
use trainwarden_telemetry::{Attempt, Event, RunId, Table, Timestamp};

/// Ranks of a run.
const RANKS: u32 = 4;

/// Sends the rows of a run as they come.
pub(crate) struct Trainer {
    run: String,
    names: Names,
    writer: FrameWriter,
    publisher: GrpcPublisher,
}

impl Trainer {
    pub(crate) fn new(run: &str, url: &str) -> Self {
        let publisher = GrpcPublisher::connect(url).expect("the service answers");
        Self { run: run.to_owned(), names: Names::default(), writer: FrameWriter::new("node0", run, None), publisher }
    }

    /// One step: the ranks that speak tell how long it took.
    pub(crate) fn step(&mut self, step: u64, speaks: impl Fn(u32) -> bool) {
        let metric = self.names.intern("step_time_s");
        let mut batch = BatchWriter::default();
        for rank in (0..RANKS).filter(|rank| speaks(*rank)) {
            let value = 0.1 + f64::from((rank * 7 + step as u32 * 3) % 11) * 1e-4;
            let sample =
                SampleRow { log_time: NO_TIME, step, time: NO_TIME, value, attempt: 0, rank, metric, reserved: 0 };
            batch.push(&Record { log_time: NO_TIME, row: Row::Sample(sample) }, &self.names);
        }
        self.send(&mut batch);
    }

    /// The run ends as it should.
    pub(crate) fn end(&mut self) {
        let event = Event {
            time: Timestamp(trainwarden::serve::desk::now_ns()),
            source: "trainer".to_owned(),
            kind: "run_end".to_owned(),
            actor: None,
            run: Some(RunId::new(&self.run)),
            attempt: Attempt(0),
            node: None,
            rank: None,
            subject: None,
            detail: None,
        };
        let mut batch = BatchWriter::default();
        batch.push(&Record { log_time: NO_TIME, row: Row::Event(std::sync::Arc::new(event)) }, &self.names);
        self.send(&mut batch);
    }

    fn send(&mut self, batch: &mut BatchWriter) {
        for (table, rows) in batch.finish() {
            let frame = self.writer.rows(table, &rows, 0);
            let (sender, receiver) = channel();
            self.publisher.publish(&self.run, &frame, Box::new(move |done| sender.send(done).expect("it waits")));
            receiver.recv().expect("told once").expect("durable");
        }
    }
}

/// Records that are no telemetry: noise, a wrong digest, an unknown table, a payload that does not unpack, a table
/// without its columns.
pub(crate) fn poison() -> Vec<Vec<u8>> {
    use prost::Message;
    use trainwarden_proto::v1::{Envelope, Frame};
    let mut batch = BatchWriter::default();
    let mut names = Names::default();
    let (comm, op) = (names.intern("dp"), names.intern("all_reduce"));
    let row = CollectiveRow {
        log_time: 5,
        seq: 1,
        bytes: NO_U64,
        step: 1,
        enqueued: NO_TIME,
        start: NO_TIME,
        end: 5,
        attempt: 0,
        rank: 0,
        peer: NO_U32,
        comm,
        op,
        signature: NameId::NONE,
    };
    batch.push(&Record { log_time: 5, row: Row::Collective(row) }, &names);
    let rows = batch.finish();
    let frame = |table| FrameWriter::new("evil", "poison", Some(LogClock::Nanoseconds)).rows(table, &rows[0].1, 5);
    let good = frame(Table::Collectives);
    let spoilt = |change: &dyn Fn(&mut Frame, &mut Envelope)| {
        let mut frame = Frame::decode(&good[..]).expect("a frame");
        let mut envelope = Envelope::decode(frame.envelope.clone()).expect("an envelope");
        change(&mut frame, &mut envelope);
        frame.envelope = envelope.encode_to_vec().into();
        frame.encode_to_vec()
    };
    let repacked = |bytes: &[u8]| {
        spoilt(&|frame, envelope| {
            frame.payload = bytes.to_vec().into();
            envelope.digest = blake3::hash(bytes).as_bytes().to_vec().into();
            envelope.encoding = trainwarden_proto::v1::Encoding::ArrowZstd.into();
        })
    };
    vec![
        b"noise".to_vec(),
        Vec::new(),
        spoilt(&|frame, _| frame.payload = b"other".to_vec().into()),
        spoilt(&|_, envelope| envelope.table = 99),
        spoilt(&|_, envelope| envelope.run.clear()),
        spoilt(&|_, envelope| envelope.payload_bytes = u64::MAX),
        repacked(b"not compressed"),
        repacked(&zstd::bulk::compress(b"not an arrow stream", 1).expect("memory")),
        frame(Table::Samples),
    ]
}
