# The EMR Serverless application that runs every job, and where its logs go.

variable "name" { type = string }
variable "release" { type = string }
variable "image" { type = string }
variable "most" { type = object({ cpu = string, memory = string, disk = string }) }
variable "network" { type = object({ subnets = list(string), security_groups = list(string) }) }
variable "key_arn" { type = string }
variable "log_days" { type = number }
variable "log_bucket" { type = string }

resource "aws_emrserverless_application" "this" {
  name          = var.name
  type          = "SPARK"
  release_label = var.release
  architecture  = "X86_64" # wheels of the archive are built for it
  maximum_capacity {
    cpu    = var.most.cpu
    memory = var.most.memory
    disk   = var.most.disk
  }
  auto_start_configuration { enabled = true }
  auto_stop_configuration {
    enabled              = true
    idle_timeout_minutes = 15
  }
  dynamic "image_configuration" {
    for_each = var.image == "" ? [] : [var.image]
    content { image_uri = image_configuration.value }
  }
  dynamic "network_configuration" {
    for_each = var.network[*]
    content {
      subnet_ids         = network_configuration.value.subnets
      security_group_ids = network_configuration.value.security_groups
    }
  }
}

resource "aws_cloudwatch_log_group" "jobs" {
  name              = "/lakehouse/${var.name}/jobs"
  retention_in_days = var.log_days
  kms_key_id        = var.key_arn
}

output "id" { value = aws_emrserverless_application.this.id }
output "arn" { value = aws_emrserverless_application.this.arn }
output "log_group" { value = aws_cloudwatch_log_group.jobs.name }
output "log_group_arn" { value = aws_cloudwatch_log_group.jobs.arn }
output "log_uri" { value = "s3://${var.log_bucket}/emr/" }
