#!/bin/bash
# A training that outlives preemption and time limits. What follows the script's name is what would follow
# `diffcli train`, but for --name and --resume:
#
#     sbatch --job-name=bedroom docs/slurm.sh --preset lsun_bedroom
#
#SBATCH --job-name=diffcli
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120

# The job's id stays the same when it is queued again, and the dash ends it, so no other job's run is meant.
run="$SLURM_JOB_ID-$SLURM_JOB_NAME"

message=$(diffcli runs show "$run" 2>&1 > /dev/null)
found=$?
case $found in
    0) training=(--resume "$run") ;;
    3) training=("$@" --name "$run") ;; # there is no such run yet
    *) echo "$message" >&2; exit "$found" ;;
esac

# The seconds that torchrun leaves the training to save (30 otherwise); fewer than --signal gives above.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=100
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / SLURM_GPUS_ON_NODE))
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$SLURM_GPUS_ON_NODE" \
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" \
    --rdzv-endpoint="$first_node:$((20000 + SLURM_JOB_ID % 10000))" \
    -m -- diffcli train "${training[@]}" &
step=$!

# SIGUSR1: the time is nearly over. SIGTERM, to this shell: Slurm ends the job (scancel, preemption), and has
# decided what becomes of it. In both cases the training stops and saves.
again=no
ending=no
trap 'again=yes; kill -TERM "$step"' USR1
trap 'ending=yes; kill -TERM "$step"' TERM

# a trapped signal ends a wait early
wait "$step"
status=$?
while kill -0 "$step" 2> /dev/null; do
    wait "$step"
    status=$?
done

stopped() {
    diffcli runs show "$run" --json | grep -q '"state": "stopped"'
}

# A training that stopped without a word to this shell was warned by Slurm itself of a preemption to come.
if [ "$status" -ne 0 ] && [ "$ending" = no ] && { [ "$again" = yes ] || stopped; }; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
