#include "cpp_tests/cuda/triplet_backend.h"

namespace {

using Blocks = pyreid::test::CudaTriplets<false>;
using Clusters = pyreid::test::CudaTriplets<true>;

}  // namespace

PYREID_TEST_TRIPLET(Blocks, true)

TEST(batches_in_clusters) {
  pyreid::test::check_triplet_batches<float, Clusters, true>();
  pyreid::test::check_triplet_batches<double, Clusters, true>();
}

TEST(sizes) { pyreid::test::check_sizes<Blocks, true>(pyreid::test::kBlockSizes); }
TEST(sizes_in_clusters) { pyreid::test::check_sizes<Clusters, true>(pyreid::test::kClusterSizes); }
TEST(nan_in_clusters_is_not_lost) { pyreid::test::check_triplets_of_nan<Clusters, true>(); }
TEST(paths_agree) { pyreid::test::check_paths_agree<true>(); }

TEST(duplicates_in_a_large_batch) {
  using pyreid::Reduction;
  pyreid::test::check_triplet_batch<float, Blocks, true>(pyreid::test::batch_with_duplicates<float>(270, 24),
                                                         {Reduction::kMean}, {{true, 0}});
  pyreid::test::check_triplet_batch<double, Blocks, true>(pyreid::test::batch_with_duplicates<double>(258, 5),
                                                          {Reduction::kSum}, {{false, 0.3}});
}
