#pragma once

#include "mergepipe/comm/communicator.h"

namespace mergepipe {

/// The communicator of the session that the test program's main has started. Every rank runs every
/// test. A test uses EXPECT only: a rank that left it early would keep the others waiting.
Communicator& World();

}  // namespace mergepipe
