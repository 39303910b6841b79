//! Protobuf over gRPC with small buffers. A stream lives as long as its agent is connected and is mostly
//! silent, so what each holds while it waits is what many agents cost; a larger frame lets them grow.

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::limits::{CODEC_BUFFER_BYTES, CODEC_YIELD_BYTES};

/// What encodes frames to send and decodes those received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameCodec<T, U>(core::marker::PhantomData<(T, U)>);

impl<T, U> Codec for FrameCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(CODEC_BUFFER_BYTES, CODEC_YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(CODEC_BUFFER_BYTES, CODEC_YIELD_BYTES))
    }
}
