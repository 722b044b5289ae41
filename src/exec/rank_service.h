#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "exec/remote_output.h"
#include "mergepipe/exec/run_slice.h"

namespace mergepipe {

/// What the main threads of all ranks do for each other while their workers work: progress and, if
/// rank 0 writes for all, output go to rank 0. It ends when every rank has finished, so that no
/// message is left over. Main thread.
class RankService {
 public:
  /// `remote` is this rank's output if rank 0 writes it, and `receiver` what writes it there; else
  /// null. `progress` is rank 0's, and may be null.
  RankService(Communicator& communicator, RemoteOutput* remote, OutputReceiver* receiver,
              ProgressListener* progress, uint64_t total_bytes);

  /// Sends and receives what there is. An error is this rank's own: from writing for another one.
  Status Service(uint64_t done_bytes);
  /// After a failure: what is not on its way yet need not arrive.
  void Stop();
  /// This rank's workers have ended; true once all ranks' have, as far as this one has to know.
  bool Finish();

 private:
  void ExchangeProgress(uint64_t done_bytes);

  Communicator& communicator_;
  RemoteOutput* remote_;
  OutputReceiver* receiver_;
  ProgressListener* progress_;
  std::vector<uint64_t> done_;   // rank 0: by rank
  std::vector<uint64_t> total_;  // likewise
  int finished_ = 0;             // rank 0: of the other ranks
  bool told_ = false;            // others: that this one has finished
  std::chrono::steady_clock::time_point next_;
};

}  // namespace mergepipe
