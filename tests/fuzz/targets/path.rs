//! Any bytes as a path, under every setting: what a normalised path looks like, and that it stays as it is.
//!
//! The first byte says which settings; the rest is the target as it came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_config::settings::{EscapedSlashes, PathNormalization};
use proxy_http::headers::Headers;
use proxy_http::message::{Method, Request, Version};
use proxy_http::path::{PathAction, normalize_path};

fuzz_target!(|data: &[u8]| {
    let Some((form, target)) = data.split_first() else { return };
    let settings = PathNormalization {
        normalize: form & 1 != 0,
        merge_slashes: form & 2 != 0,
        escaped_slashes: match form >> 2 & 3 {
            0 => EscapedSlashes::KeepUnchanged,
            1 => EscapedSlashes::RejectRequest,
            2 => EscapedSlashes::UnescapeAndRedirect,
            _ => EscapedSlashes::UnescapeAndForward,
        },
    };
    let mut request = Request::new(Method::Get, Version::Http11, b"h", target, Headers::new());
    let action = normalize_path(&mut request, &settings);
    let new = request.path().to_vec();
    if action == PathAction::Reject {
        return;
    }
    let (path, query) = split(&new);
    assert_eq!(query, split(target).1, "the query was touched");
    if target.first() != Some(&b'/') {
        assert_eq!(new, target, "what is no path was touched");
        return;
    }
    assert_eq!(new[0], b'/');
    if settings.normalize {
        assert!(path.iter().all(|byte| byte.is_ascii_graphic()), "bytes that no path may have");
        assert!(!path.contains(&b'\\'), "a backslash is left");
        let dots = path.split(|&byte| byte == b'/').any(|segment| matches!(segment, b"." | b".."));
        assert!(!dots, "a dot segment is left");
    }
    if settings.escaped_slashes != EscapedSlashes::KeepUnchanged && !settings.normalize {
        let escaped = path
            .windows(3)
            .any(|escape| [b"%2f", b"%5c"].iter().any(|slash| escape.eq_ignore_ascii_case(&slash[..])));
        // Unescaping goes over the path once: `%%2f2f` holds one again, as it does in Envoy.
        assert!(!escaped || target.windows(2).any(|pair| pair == b"%%"), "an escaped slash is left");
    }
    // As in Envoy, parameters of a dot segment go only behind a forward slash, which a backslash becomes later.
    if settings.escaped_slashes == EscapedSlashes::KeepUnchanged && !path.contains(&b';') {
        let mut again = Request::new(Method::Get, Version::Http11, b"h", &new, Headers::new());
        assert_eq!(normalize_path(&mut again, &settings), PathAction::Continue, "refused the second time");
        assert_eq!(again.path(), new, "another path the second time");
    }
});

fn split(target: &[u8]) -> (&[u8], &[u8]) {
    target.split_at(target.iter().position(|&byte| byte == b'?').unwrap_or(target.len()))
}
