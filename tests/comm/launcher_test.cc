#include <gtest/gtest.h>

#include <cstdlib>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "mergepipe/comm/communicator.h"
#include "support/error_of.h"

namespace mergepipe {
namespace {

// Starts each test without any launcher's variables and restores them after it.
class DetectLauncherTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name :
         {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "PMI_SIZE",
          "SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID", "SLURM_STEPID", "SLURM_NTASKS", "SLURM_PROCID",
          "SLURM_JOB_ID", "SLURM_JOB_NUM_NODES"}) {
      const char* value = std::getenv(name);
      before_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
      ::unsetenv(name);
    }
  }
  void TearDown() override {
    for (const auto& [name, value] : before_) {
      if (value) {
        ::setenv(name.c_str(), value->c_str(), 1);
      } else {
        ::unsetenv(name.c_str());
      }
    }
  }
  static void Set(std::initializer_list<std::pair<const char*, const char*>> variables) {
    for (const auto& [name, value] : variables) ::setenv(name, value, 1);
  }
  static void Expect(bool launched, int rank, int size) {
    const LaunchInfo info = DetectLauncher();
    EXPECT_EQ(info.launched, launched);
    EXPECT_EQ(info.rank, rank);
    EXPECT_EQ(info.size, size);
  }
  // A session refuses to start, and says how to start it.
  static void ExpectAlone(const std::string& remedy) {
    const auto session = CommSession::Start();
    ASSERT_FALSE(session);
    EXPECT_EQ(session.error().kind(), ErrorKind::kUsage);
    EXPECT_NE(session.error().problems()[0].remedy.find(remedy), std::string::npos);
  }

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(DetectLauncherTest, NoLauncher) { Expect(false, 0, 1); }

TEST_F(DetectLauncherTest, Mpirun) {
  Set({{"OMPI_COMM_WORLD_SIZE", "8"}, {"OMPI_COMM_WORLD_RANK", "3"}, {"PMIX_RANK", "5"}});
  Expect(true, 3, 8);
}

TEST_F(DetectLauncherTest, MpirunOfOneRankIsALauncher) {
  Set({{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}});
  Expect(true, 0, 1);
}

TEST_F(DetectLauncherTest, SrunWithPmix) {
  Set({{"PMIX_RANK", "2"}, {"SLURM_STEP_NUM_TASKS", "4"}});
  Expect(true, 2, 4);
}

TEST_F(DetectLauncherTest, OneTaskOfSrunWithPmixNeedsNoMpi) {
  Set({{"PMIX_RANK", "0"}, {"SLURM_STEP_ID", "7"}, {"SLURM_STEP_NUM_TASKS", "1"}});
  Expect(false, 0, 1);
}

TEST_F(DetectLauncherTest, AnotherLauncherWithPmix) {
  Set({{"PMIX_RANK", "3"}});
  Expect(true, 3, 1);
}

TEST_F(DetectLauncherTest, SrunWithoutPmixStartsProcessesThatAreAlone) {
  Set({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "3"}});
  Expect(false, 3, 4);
  ExpectAlone("srun --mpi=pmix");
}

TEST_F(DetectLauncherTest, SrunWithPmi2StartsProcessesThatAreAlone) {
  Set({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "1"}});
  Set({{"PMI_SIZE", "4"}, {"PMI_RANK", "1"}});
  Expect(false, 1, 4);
  ExpectAlone("srun --mpi=pmix");
}

TEST_F(DetectLauncherTest, AnotherMpisLauncherStartsProcessesThatAreAlone) {
  Set({{"PMI_SIZE", "3"}, {"PMI_RANK", "2"}});
  Expect(false, 2, 3);
  ExpectAlone("mpirun");
}

TEST_F(DetectLauncherTest, MpirunInAStepOfSrun) {
  Set({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_PROCID", "1"}});
  Set({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"}});
  Expect(true, 3, 4);
  EXPECT_TRUE(CheckNotAlone(DetectLauncher(), 4));
}

TEST_F(DetectLauncherTest, MpirunOfAnotherMpi) {
  Set({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"}});
  const Error error = ErrorOf(CheckNotAlone(DetectLauncher(), 1));
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_NE(error.problems()[0].what.find("4 processes"), std::string::npos);
}

TEST_F(DetectLauncherTest, ABatchScriptKnowsItsTasks) {
  Set({{"SLURM_JOB_NUM_NODES", "2"}});
  EXPECT_EQ(DetectLauncher().job_tasks, 2);
  Set({{"SLURM_NTASKS", "8"}});
  EXPECT_EQ(DetectLauncher().job_tasks, 8);
  Expect(false, 0, 1);
  EXPECT_TRUE(CheckNotAlone(DetectLauncher(), 1));
}

TEST_F(DetectLauncherTest, AStepHasWhatItAskedFor) {
  Set({{"SLURM_NTASKS", "8"}, {"SLURM_STEPID", "0"}});
  EXPECT_EQ(DetectLauncher().job_tasks, 1);
}

TEST_F(DetectLauncherTest, ABatchScriptAloneIsNone) {
  Set({{"SLURM_JOB_ID", "17"},
       {"SLURM_NTASKS", "4"},
       {"SLURM_PROCID", "0"},
       {"SLURM_STEP_NUM_TASKS", "4"}});
  Expect(false, 0, 1);
}

TEST_F(DetectLauncherTest, GarbageIsNone) {
  for (const char* garbage : {"", "four", "4x", " 4", "99999999999"}) {
    Set({{"OMPI_COMM_WORLD_SIZE", garbage}, {"PMIX_RANK", garbage}});
    Expect(false, 0, 1);
  }
}

TEST_F(DetectLauncherTest, ASessionWithoutALauncherIsLocal) {
  const auto session = CommSession::Start();
  ASSERT_TRUE(session);
  EXPECT_EQ((*session)->communicator().size(), 1);
  EXPECT_TRUE((*session)->communicator().is_root());
}

TEST(HostName, IsOneWord) {
  EXPECT_FALSE(HostName().empty());
  EXPECT_EQ(HostName().find_first_of(" \n"), std::string::npos);
  EXPECT_EQ(HostName(), HostName().c_str());
}

}  // namespace
}  // namespace mergepipe
