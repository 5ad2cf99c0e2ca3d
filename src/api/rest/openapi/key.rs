//! The key as a path names it.

use utoipa::{
    IntoParams,
    openapi::{
        Required,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{ObjectBuilder, Type},
    },
};

/// What may stand between two slashes: anything but `.` and `..`.
const SEGMENT: &str = r"([^./][^/]*|\.([^./][^/]*|\.[^/]+))?";

/// The key in a path.
pub struct KeyInPath;

impl IntoParams for KeyInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let pattern = format!("^{SEGMENT}(/{SEGMENT})*$");
        let schema = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).pattern(Some(pattern)).build();
        let key = ParameterBuilder::new()
            .name("key")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(
                "The key: all that follows, percent-decoded once. It may hold slashes, as they are or as `%2F`.",
            ))
            .schema(Some(schema))
            .example(Some("greeting".into()))
            .build();
        vec![key]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::escape, *};

    #[test]
    fn the_pattern_is_what_the_parser_takes() {
        let pattern = regex::Regex::new(&format!("^{SEGMENT}(/{SEGMENT})*$")).unwrap();
        for key in [
            "a", ".", "..", "...", "....", "/", "//", "a/b", "a/.", "./a", "../a", "a/../b", "a/..b/c", ".a", "..a",
            "a.", "a/.b./c",
        ] {
            assert_eq!(pattern.is_match(key), escape::key_of(key).is_ok(), "{key}");
        }
    }
}
