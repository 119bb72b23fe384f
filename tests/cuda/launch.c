/* launch: the launchers of kernels/cuda/launch.h that no operation of kernels.h has. */
#include "kernels/cuda/launch.h"

#include "engine/fp8.h"
#include "engine/rng.h"
#include "tests/unit/kernels_cases.h"

int main(void)
{
	return check_result();
}
