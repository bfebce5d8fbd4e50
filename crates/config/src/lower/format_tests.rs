//! What Envoy 1.40 accepts and refuses (`--mode validate`), and what the pieces are.

use super::*;
use crate::settings::{Field, FilterStateForm, HeaderSource, Operator, TimePart};

fn facts() -> FormatFacts {
    FormatFacts {
        hostname: "host".into(),
        environment: |name| (name == "HOME").then(|| "/root".into()),
        ..FormatFacts::default()
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    parse(text, &facts()).unwrap().pieces.into_vec()
}

fn error(text: &str) -> String {
    parse(text, &facts()).unwrap_err().to_string()
}

fn only_operator(text: &str) -> Operator {
    match pieces(text).as_slice() {
        [Piece::Value { operator, limit: None }] => operator.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn text_and_constants_are_one_piece() {
    let text = |text: &str| vec![Piece::Text(text.into())];
    assert_eq!(
        pieces("100%% of %HOSTNAME%: %ENVIRONMENT(HOME):3%%ENVIRONMENT(X)%"),
        text("100% of host: /ro-")
    );
    assert_eq!(pieces(""), []);
}

#[test]
fn headers_have_an_alternative_and_a_length() {
    let Piece::Value { operator: Operator::Header(choice), limit } = &pieces("%REQ(X-A?:PATH):10%")[0] else {
        panic!("no header")
    };
    assert_eq!(
        (choice.source, &*choice.name, choice.alternative.as_deref()),
        (HeaderSource::Request, "x-a", Some(":path"))
    );
    assert_eq!(*limit, Some(10));
    let name = |text| match only_operator(text) {
        Operator::Header(choice) => (choice.name, choice.alternative),
        other => panic!("{other:?}"),
    };
    assert_eq!(name("%RESP(?b)%"), ("b".into(), None));
    assert_eq!(name("%TRAILER(a?)%"), ("a".into(), None));
    assert_eq!(name("%REQ(Host)%"), (":authority".into(), None));
    assert_eq!(name("%REQ(%)%"), ("%".into(), None));
}

#[test]
fn accepted_as_in_envoy() {
    for text in [
        "%START_TIME()%",
        "%START_TIME(%q)%",
        "%START_TIME(%E)%",
        "%START_TIME(%H:%M%%)%",
        "%START_TIME(%s)% ",
        "%COMMON_DURATION(A:B:ms)%",
        "%COMMON_DURATION(DS_RX_BEG:DS_RX_END)%",
        "%DURATION()%",
        "%PATH()%",
        "%PATH(NQ):3%",
        "%PATH(WQ:ORIG_OR_PATH)%",
        "%QUERY_PARAMS:3%",
        "%QUERY_PARAM(a):2%",
        "%REQ(a):0%",
        "%REQ(a):10%x",
        "%RESPONSE_CODE_DETAILS(X)%",
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)%",
        "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(MASK_PREFIX_LEN=8)%",
        "%REQUESTED_SERVER_NAME(HOST_FIRST)%",
    ] {
        assert!(parse(text, &facts()).is_ok(), "{text}: {}", error(text));
    }
}

#[test]
fn refused_as_in_envoy() {
    let no_operator =
        |text: &str, at: usize| assert_eq!(parse(text, &facts()), Err(FormatError::NoOperator { at }));
    no_operator("%", 0);
    no_operator("100%", 3);
    no_operator("%%%", 2);
    no_operator("%REQ(a", 0);
    no_operator("%REQ(a)", 0);
    no_operator("%REQ (a)%", 0);
    no_operator("%REQ(a):x%", 0);
    no_operator("%REQ(a):-1%", 0);
    no_operator("%REQ(a):99999999999999999999%", 0);
    no_operator("%REQ(a):2:3%", 0);
    no_operator("x %req(a)%", 2);
    for (text, message) in [
        ("%FOO%", "no operator is named FOO"),
        ("%REQ%", "%REQ% needs a parameter"),
        ("%REQ()%", "%REQ% needs a parameter"),
        ("%QUERY_PARAM%", "%QUERY_PARAM% needs a parameter"),
        ("%DURATION:3%", "%DURATION% takes no parameter and no length"),
        ("%DURATION(a)%", "%DURATION% takes no parameter and no length"),
        ("%START_TIME(%Y):2%", "%START_TIME% takes no length"),
        ("%REQ(a b)%", "\"a b\" is no header name"),
        ("%REQ(a)b)%", "\"a)b\" is no header name"),
        ("%CEL(request.path)%", "the operator %CEL% is not supported"),
    ] {
        assert_eq!(error(text), message, "{text}");
    }
    for text in [
        "%REQ(a?b?c)%",
        "%GRPC_STATUS(FOO)%",
        "%PATH(XX)%",
        "%PATH(NQ:XX)%",
        "%QUERY_PARAMS(X)%",
        "%COMMON_DURATION(DS_RX_BEG:DS_RX_END:s)%",
        "%COMMON_DURATION(A)%",
        "%REQUESTED_SERVER_NAME(X)%",
    ] {
        assert!(matches!(parse(text, &facts()), Err(FormatError::BadParameter { .. })), "{text}");
    }
}

#[test]
fn times_are_compiled() {
    let parts = |text: &str| match only_operator(text) {
        Operator::Time(format) => format.parts.into_vec(),
        other => panic!("{other:?}"),
    };
    let text = |text: &str| TimePart::Text(text.into());
    assert_eq!(parts("%START_TIME%"), [TimePart::DateTime, text("."), TimePart::Fraction(3), text("Z")]);
    assert_eq!(parts("%EMIT_TIME(%s.%6f)%"), [TimePart::EpochSeconds, text("."), TimePart::Fraction(6)]);
    assert_eq!(parts("%START_TIME(%Y-%m-%dT%H:%M:%S x%%%q)%"), [TimePart::DateTime, text(" x%%q")]);
    assert_eq!(parts("%START_TIME(%E*S%E)%")[2..], [TimePart::ShortestFraction, text("%E")]);
}

#[test]
fn plain_operators_are_fields() {
    assert_eq!(only_operator("%RESPONSE_CODE%"), Operator::Field(Field::ResponseCode));
    assert_eq!(only_operator("%DOWNSTREAM_TLS_VERSION%"), Operator::Field(Field::Absent));
}

#[test]
fn filter_state_is_told_of_by_key_and_form() {
    for (text, form) in [
        ("%FILTER_STATE(a)%", FilterStateForm::Typed),
        ("%FILTER_STATE(a:)%", FilterStateForm::Typed),
        ("%FILTER_STATE(a:TYPED)%", FilterStateForm::Typed),
        ("%FILTER_STATE(a:PLAIN):3%", FilterStateForm::Plain),
        ("%FILTER_STATE(a:FIELD:b)%", FilterStateForm::Field),
    ] {
        let format = parse(text, &FormatFacts::default()).unwrap();
        let key = "a".into();
        assert_eq!(format.operators().collect::<Vec<_>>(), [&Operator::FilterState { key, form }], "{text}");
    }
    for wrong in [
        "%FILTER_STATE%",
        "%FILTER_STATE()%",
        "%FILTER_STATE(:PLAIN)%",
        "%FILTER_STATE(a:FIELD)%",
        "%FILTER_STATE(a:PLAIN:b)%",
        "%FILTER_STATE(a:NONSENSE)%",
        "%FILTER_STATE(envoy.tcp_proxy.propagate_response_headers)%",
        "%UPSTREAM_FILTER_STATE(a)%",
    ] {
        assert!(parse(wrong, &FormatFacts::default()).is_err(), "{wrong}");
    }
}
