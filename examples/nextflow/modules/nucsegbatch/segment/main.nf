// Masks and tables of the images of one sample, such as a plate: a module in the form of nf-core.
// images: files, or one folder or OME-Zarr store; model: a file made by `nucseg-batch train`, or [].
// Exit code 3 of nucseg-batch says that some images failed, which the table of failures lists; it is no error here.
process NUCSEGBATCH_SEGMENT {
    tag "$meta.id"
    label 'process_high'

    conda "${moduleDir}/environment.yml"
    container "nucseg-batch:0.3.0"

    input:
    tuple val(meta), path(images, stageAs: 'images/*')
    path(model)

    output:
    tuple val(meta), path("${prefix}.zarr")           , emit: masks
    tuple val(meta), path("${prefix}.images.csv")     , emit: images
    tuple val(meta), path("${prefix}.nuclei.csv")     , emit: nuclei
    tuple val(meta), path("${prefix}.failures.csv")   , emit: failures
    tuple val(meta), path("${prefix}.provenance.json"), emit: provenance
    tuple val(meta), path("${prefix}.report.html")    , emit: report
    path "versions.yml"                               , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def given = model ? "--model ${model}" : ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    export OMP_NUM_THREADS=${task.cpus}
    staged=(images/*)
    if [ \${#staged[@]} = 1 ] && [ -d "\${staged[0]}" ]; then
        place=\${staged[0]}
    else
        printf '%s\\n' "\${staged[@]}" > images.txt
        place=@images.txt
    fi

    nucseg-batch segment "\$place" ${prefix}.zarr ${given} ${args} || [ \$? -eq 3 ]
    nucseg-batch report ${prefix}.zarr

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        nucseg-batch: \$(nucseg-batch --version | sed 's/.* //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}.zarr
    touch ${prefix}.images.csv ${prefix}.nuclei.csv ${prefix}.failures.csv
    touch ${prefix}.provenance.json ${prefix}.report.html

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        nucseg-batch: \$(nucseg-batch --version | sed 's/.* //')
    END_VERSIONS
    """
}
