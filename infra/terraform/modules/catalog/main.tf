# Glue databases, one per layer, each at its folder of the warehouse; a workgroup for readers with Athena.

variable "name" { type = string }
variable "schemas" { type = set(string) }
variable "warehouse" { type = string }
variable "bucket_arn" { type = string }
variable "results" { type = string }
variable "with_athena" { type = bool }
variable "with_lake_formation" { type = bool }

resource "aws_glue_catalog_database" "this" {
  for_each     = var.schemas
  name         = each.key
  location_uri = "${var.warehouse}/${each.key}.db"
}

resource "aws_lakeformation_resource" "lake" {
  count = var.with_lake_formation ? 1 : 0
  arn   = var.bucket_arn
}

resource "aws_athena_workgroup" "readers" {
  count = var.with_athena ? 1 : 0
  name  = "${var.name}-readers"
  configuration {
    enforce_workgroup_configuration = true
    bytes_scanned_cutoff_per_query  = 100 * pow(1024, 3)
    result_configuration {
      output_location = var.results
      encryption_configuration { encryption_option = "SSE_S3" }
    }
  }
}

output "databases" { value = sort([for database in aws_glue_catalog_database.this : database.name]) }
