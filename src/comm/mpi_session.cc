#include <boost/mpi/environment.hpp>
#include <exception>
#include <memory>

#include "comm/mpi_communicator.h"

namespace mergepipe {
namespace {

class LocalSession final : public CommSession {
 public:
  Communicator& communicator() override { return *communicator_; }

 private:
  std::unique_ptr<Communicator> communicator_ = LocalCommunicator();
};

// abort_on_exception: should an exception reach the destructor after all, the job ends instead of
// hanging.
class MpiSession final : public CommSession {
 public:
  MpiSession()
      : environment_(boost::mpi::threading::funneled, /*abort_on_exception=*/true),
        communicator_(MpiCommunicator()) {}
  Communicator& communicator() override { return *communicator_; }

 private:
  boost::mpi::environment environment_;
  std::unique_ptr<Communicator> communicator_;
};

}  // namespace

Result<std::unique_ptr<CommSession>> CommSession::Start() {
  const LaunchInfo info = DetectLauncher();
  if (!info.launched) {
    MERGEPIPE_RETURN_IF_ERROR(CheckNotAlone(info, 1));
    return std::make_unique<LocalSession>();
  }
  try {
    auto session = std::make_unique<MpiSession>();
    MERGEPIPE_RETURN_IF_ERROR(CheckNotAlone(info, session->communicator().size()));
    return session;
  } catch (const std::exception& e) {
    return Fail(ErrorKind::kInternal, "MPI", std::string("cannot start: ") + e.what(),
                "check the MPI installation, or run without a launcher");
  }
}

}  // namespace mergepipe
