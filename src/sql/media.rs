//! Forms of an answer by the names that HTTP has for them.

use trainwarden_query::Form;

const MEDIA: &[(Form, &str)] = &[
    (Form::Json, "application/json"),
    (Form::Csv, "text/csv"),
    (Form::Arrow, "application/vnd.apache.arrow.stream"),
    (Form::NdJson, "application/x-ndjson"),
    (Form::Tsv, "text/tab-separated-values"),
    (Form::Table, "text/plain"),
];

/// The media type of a form.
#[must_use]
pub fn media_type(form: Form) -> &'static str {
    MEDIA.iter().find(|(known, _)| *known == form).map_or("application/octet-stream", |(_, media)| media)
}

/// The first form that an `Accept` header names; JSON where it takes everything.
#[must_use]
pub fn accepted(accept: &str) -> Option<Form> {
    accept.split(',').find_map(|media| match media.split(';').next().unwrap_or_default().trim() {
        "" | "*/*" | "application/*" => Some(Form::Json),
        name => MEDIA.iter().find(|(_, media)| media.eq_ignore_ascii_case(name)).map(|(form, _)| *form),
    })
}

/// All media types that there are.
#[must_use]
pub fn all() -> String {
    MEDIA.iter().map(|(_, media)| *media).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_there_is_is_taken() {
        assert_eq!(accepted("text/csv, application/json"), Some(Form::Csv));
        assert_eq!(accepted("image/png, application/vnd.apache.arrow.stream;q=0.9"), Some(Form::Arrow));
        assert_eq!((accepted("*/*"), accepted("image/png")), (Some(Form::Json), None));
        assert_eq!(accepted(media_type(Form::Tsv)), Some(Form::Tsv));
    }
}
