#pragma once

#include "exec/message_codec.h"
#include "mergepipe/exec/report.h"

/// \file
/// The fields of what became of blocks, as they travel between ranks and lie in journals.
namespace mergepipe {

template <typename Codec>
void Fields(Codec& codec, NonFiniteCount& count) {
  codec(count.nan, count.inf);
}

template <typename Codec>
void Fields(Codec& codec, PartReport& part) {
  codec(part.tensor, part.begin, part.block_hashes, part.base_hashes, part.read_hashes, part.inputs,
        part.made, part.differs);
}

}  // namespace mergepipe
