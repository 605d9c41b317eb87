### job 1
#!/bin/bash

# Parameters
#SBATCH --array=0-7%3
#SBATCH --chdir=/data/runs/count-a/train
#SBATCH --export=ALL
#SBATCH --job-name='pdforge train a'
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/data/runs/count-a/train/scheduler/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
umask 077
export PYTHONPATH=/data/runs/count-a/code/0123456789abcdef"${PYTHONPATH:+:$PYTHONPATH}"
export PDFORGE_ARRAY=1

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /data/runs/count-a/train/scheduler/%A_%a_%t_log.out --kill-on-bad-exit=1 --open-mode=append /opt/python -u -m submitit.core._submit /data/runs/count-a/train/scheduler


# teardown
pdforge_code=$?
trap : TERM  # of the requeue: the end of this shell would be the end of what asks for it
/opt/python -m pdforge.launch.after /data/runs/count-a/train "$pdforge_code"

### job 2
#!/bin/bash

# Parameters
#SBATCH --chdir=/data/runs/count-a/train
#SBATCH --export=ALL
#SBATCH --job-name='pdforge train a'
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/data/runs/count-a/train/scheduler/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
umask 077
export PYTHONPATH=/data/runs/count-a/code/0123456789abcdef"${PYTHONPATH:+:$PYTHONPATH}"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /data/runs/count-a/train/scheduler/%j_%t_log.out --kill-on-bad-exit=1 --open-mode=append /opt/python -u -m submitit.core._submit /data/runs/count-a/train/scheduler


# teardown
pdforge_code=$?
trap : TERM  # of the requeue: the end of this shell would be the end of what asks for it
/opt/python -m pdforge.launch.after /data/runs/count-a/train "$pdforge_code"
