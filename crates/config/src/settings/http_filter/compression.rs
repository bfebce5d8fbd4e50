use crate::settings::StringMatcher;

/// `envoy.extensions.filters.http.compressor.v3.Compressor`.
#[derive(Debug)]
pub struct Compressor {
    pub library: CompressorLibrary,
    /// `compressor_library.name`, which stats are called by.
    pub library_name: String,
    /// `request_direction_config`; requests are left as they are when `None`.
    pub request: Option<CompressedDirection>,
    pub response: CompressedDirection,
    /// Leaves what has an `etag` as it is.
    pub disable_on_etag: bool,
    /// Keeps a strong `etag` as a weak one, instead of removing it.
    pub weaken_etag: bool,
    pub remove_accept_encoding: bool,
    /// `uncompressible_response_codes`.
    pub uncompressible: Vec<u16>,
    /// `response_direction_config` is set: what is counted of responses is under `response.`, as in Envoy.
    pub response_stats: bool,
    /// `status_header_enabled`: `x-envoy-compression-status` tells of each response what was decided, and why.
    pub status_header: bool,
    /// `choose_first`: of encodings that the client likes equally, that of the first filter.
    pub choose_first: bool,
}

/// `Compressor.CommonDirectionConfig`.
#[derive(Debug, Clone)]
pub struct CompressedDirection {
    pub enabled: bool,
    /// `min_content_length` in bytes, 30 when unset.
    pub min_length: u64,
    /// Media types without parameters.
    pub content_types: Vec<StringMatcher>,
}

/// `envoy.extensions.filters.http.compressor.v3.CompressorPerRoute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressorPerRoute {
    Disabled,
    Overrides {
        /// Responses are compressed also where the filter says otherwise.
        response: bool,
        remove_accept_encoding: Option<bool>,
    },
}

/// What compresses, with Envoy's defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressorLibrary {
    Gzip {
        /// 1 to 9.
        level: u32,
        /// 9 to 15.
        window_bits: u8,
    },
    Brotli {
        quality: u32,
        window_bits: u32,
        input_block_bits: u32,
        mode: BrotliMode,
        literal_context_modeling: bool,
    },
    Zstd {
        level: i32,
        checksum: bool,
        /// 1 to 9 in the order of the v3 enum; the level's own when `None`.
        strategy: Option<u8>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrotliMode {
    Generic,
    Text,
    Font,
}

/// `envoy.extensions.filters.http.decompressor.v3.Decompressor`.
#[derive(Debug)]
pub struct Decompressor {
    pub library: DecompressorLibrary,
    /// `decompressor_library.name`, which stats are called by.
    pub library_name: String,
    pub request: DecompressedDirection,
    pub response: DecompressedDirection,
    /// `advertise_accept_encoding`: hosts are told that they may compress.
    pub advertise: bool,
}

/// `Decompressor.CommonDirectionConfig`.
#[derive(Debug, Clone, Copy)]
pub struct DecompressedDirection {
    pub enabled: bool,
    /// `ignore_no_transform_header`.
    pub ignore_no_transform: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecompressorLibrary {
    Gzip {
        /// 9 to 15.
        window_bits: u8,
    },
    Brotli,
    Zstd,
}
