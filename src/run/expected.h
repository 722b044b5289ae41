#pragma once

#include "mergepipe/manifest/manifest.h"

/// \file
/// What a replay must give.
namespace mergepipe {

/// Before weights are read: a base with other side files would not give the run's output.
/// kBadInput.
Status CheckSideFilesExpected(const Manifest& manifest, const Manifest& expected);

/// Every hash. kBadInput if an input is not what the run read, kVerification if the output differs.
Status CheckExpected(const Manifest& manifest, const Manifest& expected);

}  // namespace mergepipe
