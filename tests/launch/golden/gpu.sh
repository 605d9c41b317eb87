### job 1
#!/bin/bash

# Parameters
#SBATCH --account=team
#SBATCH --chdir=/data/runs/count-a/train
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=16
#SBATCH --exclude=n3,n7
#SBATCH --exclusive
#SBATCH --export=ALL
#SBATCH --gpus-per-node=1
#SBATCH --job-name='pdforge train a'
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=END
#SBATCH --mem=65536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/data/runs/count-a/train/scheduler/%j_0_log.out
#SBATCH --partition=main
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=91

# setup
umask 077
export PYTHONPATH=/data/runs/count-a/code/0123456789abcdef"${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS=16
export NCCL_DEBUG=WARN
export GREETING='it'"'"'s'
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /data/runs/count-a/train/scheduler/%j_%t_log.out --kill-on-bad-exit=1 --open-mode=append --cpus-per-task=16 --container-image=team/image.sqsh --container-mounts=/data/runs:/data/runs,/data:/data --mpi=none python3 -u -m submitit.core._submit /data/runs/count-a/train/scheduler


# teardown
pdforge_code=$?
trap : TERM  # of the requeue: the end of this shell would be the end of what asks for it
/opt/python -m pdforge.launch.after /data/runs/count-a/train "$pdforge_code"
