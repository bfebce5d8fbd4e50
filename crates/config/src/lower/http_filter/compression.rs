//! `compressor` and `decompressor`, and the libraries that do the work.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::compression::brotli::compressor::v3 as brotli_v3;
use envoy_types::pb::envoy::extensions::compression::gzip::compressor::v3 as gzip_v3;
use envoy_types::pb::envoy::extensions::compression::gzip::decompressor::v3 as gunzip_v3;
use envoy_types::pb::envoy::extensions::compression::zstd::compressor::v3 as zstd_v3;
use envoy_types::pb::envoy::extensions::filters::http::compressor::v3 as compressor_v3;
use envoy_types::pb::envoy::extensions::filters::http::decompressor::v3 as decompressor_v3;
use envoy_types::pb::google::protobuf::{Any, UInt32Value};

use crate::Path;
use crate::lower::{Context, any, matcher, value};
use crate::settings::{
    BrotliMode, CompressedDirection, Compressor, CompressorLibrary, CompressorPerRoute,
    DecompressedDirection, Decompressor, DecompressorLibrary, StringMatcher, StringPattern,
};

pub(super) fn lower_compressor(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &compressor_v3::Compressor,
) -> Option<Compressor> {
    let here = path.field("request_direction_config");
    let request = message
        .request_direction_config
        .as_ref()
        .map(|message| direction(context, &here.field("common_config"), message.common_config.as_ref()));
    let here = path.field("response_direction_config");
    #[expect(deprecated, reason = "the older spellings are part of the v3 API")]
    let older = compressor_v3::compressor::ResponseDirectionConfig {
        common_config: Some(compressor_v3::compressor::CommonDirectionConfig {
            enabled: message.runtime_enabled.clone(),
            min_content_length: message.content_length,
            content_type: message.content_type.clone(),
            content_type_matcher: Vec::new(),
        }),
        disable_on_etag_header: message.disable_on_etag_header,
        remove_accept_encoding_header: message.remove_accept_encoding_header,
        ..Default::default()
    };
    let response = message.response_direction_config.as_ref().unwrap_or(&older);
    let codes = response.uncompressible_response_codes.iter();
    let field = path.field("compressor_library");
    let (any, name) = library(context, &field, message.compressor_library.as_ref())?;
    Some(Compressor {
        library: compressor_library(context, &field.field("typed_config"), any)?,
        library_name: name.to_owned(),
        request,
        response: direction(context, &here.field("common_config"), response.common_config.as_ref()),
        disable_on_etag: response.disable_on_etag_header,
        weaken_etag: response.weaken_etag_on_compress,
        remove_accept_encoding: response.remove_accept_encoding_header,
        uncompressible: codes.filter_map(|code| u16::try_from(*code).ok()).collect(),
        response_stats: message.response_direction_config.is_some(),
        status_header: response.status_header_enabled,
        choose_first: message.choose_first,
    })
}

fn direction(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&compressor_v3::compressor::CommonDirectionConfig>,
) -> CompressedDirection {
    let Some(message) = message else {
        return CompressedDirection { enabled: true, min_length: MIN_LENGTH, content_types: default_types() };
    };
    #[expect(deprecated, reason = "the older spelling is part of the v3 API")]
    let listed = &message.content_type;
    let here = path.field("content_type_matcher");
    let mut content_types = matcher::strings(context, &here, &message.content_type_matcher);
    content_types.extend(listed.iter().map(|text| media_type(text)));
    if content_types.is_empty() {
        content_types = default_types();
    }
    CompressedDirection {
        enabled: value::feature(context, message.enabled.as_ref()),
        min_length: message.min_content_length.as_ref().map_or(MIN_LENGTH, |length| length.value.into()),
        content_types,
    }
}

fn default_types() -> Vec<StringMatcher> {
    DEFAULT_TYPES.iter().map(|text| media_type(text)).collect()
}

fn media_type(text: &str) -> StringMatcher {
    StringMatcher { pattern: StringPattern::Exact(matcher::bytes(text, true)), ignore_case: true }
}

pub(super) fn lower_compressor_route(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &compressor_v3::CompressorPerRoute,
) -> Option<CompressorPerRoute> {
    use compressor_v3::compressor_per_route::Override;
    match &message.r#override {
        Some(Override::Disabled(_)) => Some(CompressorPerRoute::Disabled),
        Some(Override::Overrides(message)) => {
            let response = message.response_direction_config.as_ref();
            let remove = response.and_then(|message| message.remove_accept_encoding_header.as_ref());
            Some(CompressorPerRoute::Overrides {
                response: response.is_some(),
                remove_accept_encoding: remove.map(|remove| remove.value),
            })
        }
        None => {
            context.missing(path, "disabled or overrides is required");
            None
        }
    }
}

pub(super) fn lower_decompressor(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &decompressor_v3::Decompressor,
) -> Option<Decompressor> {
    let field = path.field("decompressor_library");
    let (any, name) = library(context, &field, message.decompressor_library.as_ref())?;
    let request = message.request_direction_config.as_ref();
    let response = message.response_direction_config.as_ref();
    let mut direction =
        |message: Option<&decompressor_v3::decompressor::CommonDirectionConfig>| DecompressedDirection {
            enabled: value::feature(context, message.and_then(|message| message.enabled.as_ref())),
            ignore_no_transform: message.is_some_and(|message| message.ignore_no_transform_header),
        };
    let request_direction = direction(request.and_then(|message| message.common_config.as_ref()));
    let response_direction = direction(response.and_then(|message| message.common_config.as_ref()));
    Some(Decompressor {
        library: decompressor_library(context, &field.field("typed_config"), any)?,
        library_name: name.to_owned(),
        request: request_direction,
        response: response_direction,
        advertise: value::flag(request.and_then(|message| message.advertise_accept_encoding.as_ref()), true),
    })
}

/// The typed config of a library and its name.
fn library<'m>(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&'m TypedExtensionConfig>,
) -> Option<(&'m Any, &'m str)> {
    let any = message.and_then(|message| message.typed_config.as_ref());
    let Some((any, message)) = any.zip(message) else {
        context.missing(path, "a library is required");
        return None;
    };
    Some((any, &message.name))
}

fn compressor_library(context: &mut Context<'_>, path: &Path<'_>, any: &Any) -> Option<CompressorLibrary> {
    match any::type_name(any) {
        "envoy.extensions.compression.gzip.compressor.v3.Gzip" => {
            let message: gzip_v3::Gzip = any::decode(context, path, any)?;
            let level = u32::try_from(message.compression_level).unwrap_or_default();
            Some(CompressorLibrary::Gzip {
                level: if level == 0 { DEFAULT_GZIP_LEVEL } else { level.min(9) },
                window_bits: window_bits(context, path, message.window_bits.as_ref(), 12),
            })
        }
        "envoy.extensions.compression.brotli.compressor.v3.Brotli" => {
            let message: brotli_v3::Brotli = any::decode(context, path, any)?;
            brotli(context, path, &message)
        }
        "envoy.extensions.compression.zstd.compressor.v3.Zstd" => {
            let message: zstd_v3::Zstd = any::decode(context, path, any)?;
            let level = message.compression_level.as_ref().map_or(3, |level| level.value);
            Some(CompressorLibrary::Zstd {
                level: i32::try_from(level).unwrap_or(i32::MAX),
                checksum: message.enable_checksum,
                strategy: u8::try_from(message.strategy).ok().filter(|strategy| *strategy > 0),
            })
        }
        name => {
            context.refused_type(path, format_args!("the compressor {name} is not supported"));
            None
        }
    }
}

fn brotli(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &brotli_v3::Brotli,
) -> Option<CompressorLibrary> {
    use brotli_v3::brotli::EncoderMode;
    let mut number = |field: &str, message: &Option<UInt32Value>, range, default| {
        value::number(context, &path.field(field), message.as_ref(), range, default)
    };
    let quality = number("quality", &message.quality, 0..=11, 3);
    let window_bits = number("window_bits", &message.window_bits, 10..=24, 18);
    let input_block_bits = number("input_block_bits", &message.input_block_bits, 16..=24, 24);
    let mode = match value::enumeration(context, &path.field("encoder_mode"), message.encoder_mode) {
        EncoderMode::Default | EncoderMode::Generic => BrotliMode::Generic,
        EncoderMode::Text => BrotliMode::Text,
        EncoderMode::Font => BrotliMode::Font,
    };
    Some(CompressorLibrary::Brotli {
        quality,
        window_bits,
        input_block_bits,
        mode,
        literal_context_modeling: !message.disable_literal_context_modeling,
    })
}

fn decompressor_library(
    context: &mut Context<'_>,
    path: &Path<'_>,
    any: &Any,
) -> Option<DecompressorLibrary> {
    match any::type_name(any) {
        "envoy.extensions.compression.gzip.decompressor.v3.Gzip" => {
            let message: gunzip_v3::Gzip = any::decode(context, path, any)?;
            let window_bits = window_bits(context, path, message.window_bits.as_ref(), 15);
            Some(DecompressorLibrary::Gzip { window_bits })
        }
        "envoy.extensions.compression.brotli.decompressor.v3.Brotli" => Some(DecompressorLibrary::Brotli),
        "envoy.extensions.compression.zstd.decompressor.v3.Zstd" => Some(DecompressorLibrary::Zstd),
        name => {
            context.refused_type(path, format_args!("the decompressor {name} is not supported"));
            None
        }
    }
}

fn window_bits(context: &mut Context<'_>, path: &Path<'_>, message: Option<&UInt32Value>, default: u8) -> u8 {
    let bits = value::number(context, &path.field("window_bits"), message, 9..=15, default.into());
    u8::try_from(bits).unwrap_or(default)
}

/// zlib's own.
const DEFAULT_GZIP_LEVEL: u32 = 6;

/// Bytes.
const MIN_LENGTH: u64 = 30;

const DEFAULT_TYPES: &[&str] = &[
    "application/ecmascript",
    "application/javascript",
    "application/json",
    "application/x-javascript",
    "application/x-json",
    "application/xhtml+xml",
    "application/xml",
    "image/svg+xml",
    "text/css",
    "text/ecmascript",
    "text/html",
    "text/javascript",
    "text/js",
    "text/jscript",
    "text/plain",
    "text/x-javascript",
    "text/x-js",
    "text/xml",
];
