#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mergepipe/base/error.h"
#include "mergepipe/base/units.h"

namespace mergepipe {

/// How the processes of a job talk. Bytes only: each type that travels has its own codec. One
/// implementation is local (one process), the other wraps Boost.MPI.
///
/// Collectives must be called by all ranks in the same order. Call from the main thread only. A
/// failure of MPI itself ends the whole job (MPI_Abort): after it no rank could be reached to agree
/// on anything.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual Rank rank() const = 0;
  virtual int size() const = 0;
  bool is_root() const { return rank() == Rank(0); }

  /// Collective: `bytes` of rank 0 reaches all.
  virtual void Broadcast(std::string& bytes) = 0;
  /// Collective: rank 0 gets everyone's bytes in rank order; the others get an empty vector.
  virtual std::vector<std::string> Gather(std::string bytes) = 0;
  /// Collective: everyone's bytes, from rank 0's `parts` (one for each rank; ignored elsewhere).
  virtual std::string Scatter(std::vector<std::string> parts) = 0;
  /// Point to point; `tag` in [0, 1000). Send may return before the message is received. Every
  /// message must have been received before the next collective call, also by a rank that failed:
  /// the sender waits for it there.
  virtual void Send(Rank to, int tag, std::string bytes) = 0;
  virtual std::string Receive(Rank from, int tag) = 0;
  /// A message if one has begun to arrive, without waiting for one.
  virtual std::optional<std::string> TryReceive(Rank from, int tag) = 0;
  /// The same, from whichever rank.
  virtual std::optional<std::pair<Rank, std::string>> TryReceiveAny(int tag) = 0;

  /// Collective: success if every rank offers success; else the error of the lowest failing rank,
  /// the same on all, with "[rank N, host H]" before its subject where there is more than one rank.
  /// This is the only door out of a phase: no rank leaves a collective sequence except after an
  /// Agree.
  virtual Status Agree(Status mine) = 0;

  /// Tells the other ranks that this one has failed and will offer its error at the next Agree, so
  /// that they need not finish their work first. Not collective; at most once between two Agrees.
  virtual void AnnounceFailure() = 0;
  /// Whether some rank has announced a failure since the last Agree. Cheap: call it between units
  /// of work.
  virtual bool FailureAnnounced() = 0;

  /// Ends the job on all ranks at once.
  [[noreturn]] virtual void Abort(int exit_code) = 0;
};

/// One process, no MPI.
std::unique_ptr<Communicator> LocalCommunicator();

/// What a launcher's environment says about this process, before MPI starts.
struct LaunchInfo {
  bool launched = false;  ///< by mpirun, or by srun with PMIx: MPI will find the others
  int rank = 0;           ///< among the processes that the launcher started
  int size = 1;           ///< how many it started; several that are not `launched` are all alone
  int job_tasks = 1;      ///< what a batch job has room for, if this is its script's own process
};
LaunchInfo DetectLauncher();

/// kUsage if the launcher started several processes of which MPI knows only this one (`mpi_size` is
/// 1, or MPI cannot be started): they would do the same work several times.
Status CheckNotAlone(const LaunchInfo& info, int mpi_size);

/// The communicator of this process: MPI's if a launcher started it, else local. MPI is initialised
/// here and finalised when the session is destroyed; make one at most. Fails as CheckNotAlone, on
/// all processes that the launcher started.
class CommSession {
 public:
  static Result<std::unique_ptr<CommSession>> Start();
  virtual ~CommSession() = default;
  virtual Communicator& communicator() = 0;
};

/// This machine's name.
std::string HostName();

}  // namespace mergepipe
