//! Schemas: any text is compiled, or refused with errors that say where.

use crate::schema::Schema;

/// Compiles a schema from any bytes.
///
/// # Panics
/// A promise is broken.
pub fn schemas(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Schema::parse("schema.toml", text) {
        Ok(schema) => {
            let again = Schema::parse("schema.toml", text).map(|schema| schema.fingerprint());
            assert_eq!(again.ok(), Some(schema.fingerprint()), "the same text is the same schema");
        }
        Err(errors) => {
            assert!(errors.iter().next().is_some(), "a refused schema has an error");
            for error in errors.iter() {
                assert!(!error.message.is_empty(), "an error says what is wrong");
                if let Some(span) = &error.span {
                    assert!(text.get(span.clone()).is_some() || text.is_empty(), "{error:?} is outside of the text");
                    assert!(errors.place(error).is_some(), "{error:?} has no line");
                }
            }
            for colored in [false, true] {
                assert!(errors.render(colored).contains("schema.toml"), "the errors name the file");
            }
        }
    }
}
