//! Questions of tests, asked of a run folder in this process.

use std::path::Path;

use futures_util::StreamExt as _;

use crate::engine::{Engine, Sources};
use crate::explain::problem_of;
use crate::gate::statements;
use crate::limits::Limits;
use crate::output::{Form, Writer};

/// Answers a question over one run folder, a JSON object a line.
pub(crate) fn answer(folder: &Path, sql: &str) -> Result<String, String> {
    answer_with(folder, Vec::new(), sql)
}

/// ... with incidents.
pub(crate) fn answer_with(folder: &Path, incidents: Vec<String>, sql: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let sources = Sources { folders: vec![folder.to_owned()], incidents, archive: None };
    runtime.block_on(async {
        let engine = Engine::open(&sources, &Limits::default()).await.map_err(|error| error.to_string())?;
        let told = |error| problem_of(&error, sql, Some(&engine)).to_string();
        let statement = statements(sql).map_err(told)?.remove(0);
        let plan = engine.plan(statement).await.map_err(told)?;
        let mut stream = engine.answer(plan).await.map_err(told)?;
        let mut text = Vec::new();
        let mut writer = Writer::new(&mut text, Form::NdJson, stream.schema(), 0).map_err(told)?;
        while let Some(batch) = stream.next().await {
            writer.write(&batch.map_err(|error| told(error.into()))?).map_err(told)?;
        }
        writer.finish().map_err(told)?;
        Ok(String::from_utf8(text).expect("JSON is text"))
    })
}
