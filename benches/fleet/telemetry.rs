//! What the devices of a run tell: 36 metrics a tick, by the mix of a monitoring agent, under one load curve.

use arrow::array::RecordBatch;
use trainwarden_ingest::wire::{BatchWriter, FrameWriter};
use trainwarden_ingest::{NO_TIME, NameId, Names, Record, Row, SampleRow};
use trainwarden_telemetry::{Placement, Rank, Role, Roster, Table};

use crate::recorded::noise;

/// The rank whose number is NaN once, in every run.
pub(crate) const FAULTY_RANK: u32 = 7;
/// Ranks of one frame: a rack tells at once.
const PIECE_RANKS: u32 = 250;
/// Metrics of each sort; together 36.
const SORTS: [(Sort, u32); 6] =
    [(Sort::Errors, 8), (Sort::Slow, 8), (Sort::Share, 3), (Sort::Gauge, 6), (Sort::Bytes, 4), (Sort::Step, 7)];

#[derive(Clone, Copy)]
enum Sort {
    Errors,
    Slow,
    Share,
    Gauge,
    Bytes,
    Step,
}

/// One run and what it has told.
pub(crate) struct Run {
    pub(crate) name: String,
    number: u32,
    ranks: u32,
    writer: FrameWriter,
    names: Names,
    metrics: Vec<(NameId, Sort)>,
}

/// The tick at which a number of a run is NaN.
pub(crate) fn fault_tick(run: u32) -> u64 {
    20 + 4 * u64::from(run)
}

impl Run {
    pub(crate) fn new(number: u32, ranks: u32) -> Self {
        let name = format!("fleet-{number}");
        let mut names = Names::default();
        let mut metrics = Vec::new();
        for (sort, count) in SORTS {
            metrics.extend((0..count).map(|index| (names.intern(&metric(sort, index)), sort)));
        }
        let writer = FrameWriter::new("agent", &name, None);
        Self { name, number, ranks, writer, names, metrics }
    }

    /// Frames of one tick.
    pub(crate) fn pieces(&self) -> u32 {
        self.ranks.div_ceil(PIECE_RANKS)
    }

    /// Who is in the run.
    pub(crate) fn roster(&mut self) -> Vec<u8> {
        let placement = |rank| Placement {
            node: Some(format!("node-{}", rank / 8)),
            device: None,
            local_rank: Some(rank % 8),
            dp: Some(rank),
            role: Role::default(),
        };
        let placements = (0..self.ranks).map(|rank| (Rank(rank), placement(rank))).collect();
        let mut batch = BatchWriter::default();
        batch.roster(0, &Roster { placements });
        self.written(&mut batch)
    }

    /// What some of its ranks tell of a tick.
    pub(crate) fn frame(&mut self, tick: u64, piece: u32) -> Vec<u8> {
        let mut batch = BatchWriter::default();
        let first = piece * PIECE_RANKS;
        for rank in first..(first + PIECE_RANKS).min(self.ranks) {
            for (index, (metric, sort)) in (0..).zip(&self.metrics) {
                let is_faulty = rank == FAULTY_RANK && tick == fault_tick(self.number) && index == 35;
                let value = if is_faulty { f64::NAN } else { value(*sort, index, (rank, tick), self.number) };
                let (log_time, time) = (NO_TIME, NO_TIME);
                let (step, metric) = (tick, *metric);
                let row = SampleRow { log_time, step, time, value, attempt: 0, rank, metric, reserved: 0 };
                batch.push(&Record { log_time, row: Row::Sample(row) }, &self.names);
            }
        }
        self.written(&mut batch)
    }

    fn written(&mut self, batch: &mut BatchWriter) -> Vec<u8> {
        let tables: Vec<(Table, RecordBatch)> = batch.finish();
        let [(table, rows)] = &tables[..] else { panic!("one table a frame") };
        self.writer.rows(*table, rows, 0)
    }
}

fn metric(sort: Sort, index: u32) -> String {
    const STEP: [&str; 7] =
        ["step_time_s", "comm_time_s", "loss_local", "tokens", "forward_time_s", "backward_time_s", "grad_norm_local"];
    match sort {
        Sort::Errors => format!("errors_{index}_total"),
        Sort::Slow => format!("slow_{index}"),
        Sort::Share => format!("share_{index}_ratio"),
        Sort::Gauge => format!("gauge_{index}"),
        Sort::Bytes => format!("bytes_{index}_total"),
        Sort::Step => STEP[index as usize].to_owned(),
    }
}

fn value(sort: Sort, index: u32, (rank, tick): (u32, u64), run: u32) -> f64 {
    let salt = u64::from(run) << 32 | u64::from(index);
    let noise = noise(rank, tick, salt);
    let load = 0.02 * (tick as f64 / 9.0).sin();
    match sort {
        Sort::Errors => 0.0,
        Sort::Slow => (60.0 + 4.0 * load + noise).round(),
        Sort::Share => (90.0 * (1.0 + load) + 3.0 * noise).round() / 100.0,
        Sort::Gauge => ((400.0 * (1.0 + load) + 12.0 * noise) * 1e3).round() / 1e3,
        Sort::Bytes => (tick as f64 + 1.0) * 1e9 + (1e6 * noise).round(),
        // Tokens: every rank takes as many.
        Sort::Step if index == 32 => 4096.0,
        Sort::Step => (1.0 + load) * (1.0 + 0.02 * noise),
    }
}
