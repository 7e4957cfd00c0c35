//! `fingerprint_diff`: whose fingerprint is not the majority's.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, ListArray, ListBuilder, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use trainwarden_kernels::{Vote, vote};

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct FingerprintDiff {
    signature: Signature,
}

impl Default for FingerprintDiff {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable) }
    }
}

fn texts_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

impl AggregateUDFImpl for FingerprintDiff {
    fn name(&self) -> &str {
        "fingerprint_diff"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(texts_type())
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Ballot::default()))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |part: &str| Arc::new(Field::new(format!("{}_{part}", arguments.name), texts_type(), true));
        Ok(vec![field("labels"), field("digests")])
    }
}

#[derive(Debug, Default)]
struct Ballot {
    votes: Vec<(String, String)>,
}

impl Ballot {
    fn take(&mut self, labels: &ArrayRef, digests: &ArrayRef) {
        let digests = digests.as_string::<i32>().iter();
        let votes = labels.as_string::<i32>().iter().zip(digests);
        self.votes.extend(votes.filter_map(|(label, digest)| Some((label?.to_owned(), digest?.to_owned()))));
    }
}

fn list_of<'a>(texts: impl Iterator<Item = &'a str>) -> ListArray {
    let mut builder = ListBuilder::new(StringBuilder::new());
    builder.append_value(texts.map(Some));
    builder.finish()
}

impl Accumulator for Ballot {
    fn update_batch(&mut self, cells: &[ArrayRef]) -> Result<()> {
        self.take(&cells[0], &cells[1]);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let words: Vec<&str> = self.votes.iter().map(|vote| vote.1.as_str()).collect();
        let odd: Vec<usize> = match vote(&words) {
            Vote::Unanimous => Vec::new(),
            Vote::Minority(odd) => odd,
            Vote::Split(_) => (0..words.len()).collect(),
        };
        let mut labels: Vec<&str> = odd.into_iter().map(|at| self.votes[at].0.as_str()).collect();
        // Ranks are numbers: 9 comes before 10.
        labels.sort_by_key(|label| (label.parse::<u64>().unwrap_or(u64::MAX), *label));
        Ok(ScalarValue::List(Arc::new(list_of(labels.into_iter()))))
    }

    fn size(&self) -> usize {
        let texts: usize = self.votes.iter().map(|vote| vote.0.capacity() + vote.1.capacity()).sum();
        size_of::<Self>() + self.votes.capacity() * size_of::<(String, String)>() + texts
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let labels = list_of(self.votes.iter().map(|vote| vote.0.as_str()));
        let digests = list_of(self.votes.iter().map(|vote| vote.1.as_str()));
        Ok(vec![ScalarValue::List(Arc::new(labels)), ScalarValue::List(Arc::new(digests))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let digests = states[1].as_list::<i32>().iter();
        for (labels, digests) in states[0].as_list::<i32>().iter().zip(digests) {
            if let (Some(labels), Some(digests)) = (labels, digests) {
                self.take(&labels, &digests);
            }
        }
        Ok(())
    }
}
