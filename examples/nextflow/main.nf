// One run of nucseg-batch in several shares, for a collection that is too large for one job.
//   nextflow run main.nf --input /data/images --out /results/out.zarr --shares 64 [--plan_options '--diameter 30']
// IN and OUT are on a disk that all nodes see, with absolute paths. OUT is no output of a process, because all shares
// write into it; -resume repeats the shares that had failed, and nucseg-batch resumes within them.
// For samples that each fit one job, use modules/nucsegbatch/segment instead.
params.input = null
params.out = null
params.shares = 1
params.plan_options = ''
params.segment_options = ''

process PLAN {
    input:
    val place
    val out

    output:
    val out

    script:
    """
    nucseg-batch plan '${place}' '${out}' --shares ${params.shares} ${params.plan_options}
    """
}

process SHARE {
    tag "share ${share}"
    label 'process_high'
    // 75: stopped, or another process still has the share; 137 and 143: killed
    errorStrategy { task.exitStatus in [75, 137, 143] ? 'retry' : 'finish' }
    maxRetries 3

    input:
    val out
    each share

    output:
    val share

    script:
    """
    export OMP_NUM_THREADS=${task.cpus}
    nucseg-batch segment --run '${out}' --share ${share} ${params.segment_options} || { code=\$?; [ \$code = 3 ] || exit \$code; }
    """
}

process FINISH {
    input:
    val out
    val shares

    output:
    val out

    script:
    """
    nucseg-batch finish '${out}' || [ \$? -eq 3 ]
    nucseg-batch status '${out}' --json --quiet | grep '"complete": true'
    nucseg-batch report '${out}'
    """
}

workflow {
    planned = PLAN(params.input, params.out)
    done = SHARE(planned, Channel.of(0..<(params.shares as int)))
    FINISH(planned, done.collect())
}
