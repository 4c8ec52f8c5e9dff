#!/usr/bin/env cwl-runner
# One folder of images to masks and tables, as a CWL tool. Needs nucseg-batch where the tool runs:
#   cwltool nucseg_batch.cwl --images images/ --diameter 30
# A job has its own folder, so shares of one run are no CWL jobs: scatter over folders, such as plates, instead.
cwlVersion: v1.2
class: CommandLineTool
label: Segment nuclei with nucseg-batch
doc: Writes OME-Zarr masks, tables with one row per image and per nucleus, and a report.
requirements:
  InlineJavascriptRequirement: {}
  EnvVarRequirement:
    envDef:
      OMP_NUM_THREADS: $(String(runtime.cores))
  ResourceRequirement:
    coresMin: 2
    ramMin: 4000
  NetworkAccess:
    networkAccess: false
baseCommand: [nucseg-batch, segment]
arguments:
  - position: 2
    valueFrom: $(inputs.name).zarr
  - --report
successCodes: [0, 3] # 3: some images failed, see the table of failures
inputs:
  images:
    type: Directory
    doc: Folder of images, or an OME-Zarr store or plate.
    inputBinding: { position: 1 }
  name:
    type: string
    default: out
    doc: Name of the outputs.
  channel:
    type: string?
    doc: Name or index of the channel that shows the nuclei.
    inputBinding: { prefix: --channel }
  diameter:
    type: float?
    doc: Typical width of the nuclei in pixels; it is estimated without this.
    inputBinding: { prefix: --diameter }
  threshold:
    type: float?
    doc: Foreground probability above which a pixel belongs to a nucleus.
    inputBinding: { prefix: --threshold }
  measure:
    type: string[]?
    doc: Groups of further columns.
    inputBinding: { prefix: --measure, itemSeparator: "," }
  model:
    type: File?
    doc: Model file made by `nucseg-batch train`.
    inputBinding: { prefix: --model }
outputs:
  masks:
    type: Directory
    outputBinding: { glob: $(inputs.name).zarr }
  images_table:
    type: File
    outputBinding: { glob: $(inputs.name).images.csv }
  nuclei:
    type: File
    outputBinding: { glob: $(inputs.name).nuclei.csv }
  failures:
    type: File
    outputBinding: { glob: $(inputs.name).failures.csv }
  provenance:
    type: File
    outputBinding: { glob: $(inputs.name).provenance.json }
  report:
    type: File
    outputBinding: { glob: $(inputs.name).report.html }
