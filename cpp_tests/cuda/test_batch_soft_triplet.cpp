#include "cpp_tests/cuda/triplet_backend.h"

namespace {

using Blocks = pyreid::test::CudaTriplets<false>;
using Clusters = pyreid::test::CudaTriplets<true>;

}  // namespace

PYREID_TEST_TRIPLET(Blocks, false)

TEST(batches_in_clusters) {
  pyreid::test::check_triplet_batches<float, Clusters, false>();
  pyreid::test::check_triplet_batches<double, Clusters, false>();
}

TEST(sizes) { pyreid::test::check_sizes<Blocks, false>(pyreid::test::kBlockSizes); }
TEST(sizes_in_clusters) { pyreid::test::check_sizes<Clusters, false>(pyreid::test::kClusterSizes); }
TEST(nan_in_clusters_is_not_lost) { pyreid::test::check_triplets_of_nan<Clusters, false>(); }
TEST(paths_agree) { pyreid::test::check_paths_agree<false>(); }

TEST(duplicates_in_a_large_batch) {
  using pyreid::Reduction;
  pyreid::test::check_triplet_batch<float, Blocks, false>(pyreid::test::batch_with_duplicates<float>(270, 24),
                                                          {Reduction::kMean}, {{true, 0}});
  pyreid::test::check_triplet_batch<double, Blocks, false>(pyreid::test::batch_with_duplicates<double>(258, 5),
                                                           {Reduction::kSum}, {{false, 0.3}});
}

TEST(wide_batches_have_a_gradient_of_taller_tiles) {
  pyreid::test::check_triplet_batch<double, Blocks, false>(pyreid::test::random_batch<double>(257, 1697, 90),
                                                           {pyreid::Reduction::kMean}, {{true, 0}});
}

TEST(distant_rows) { pyreid::test::check_distant_triplets<Blocks>(); }
