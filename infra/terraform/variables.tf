variable "environment" {
  description = "Environment: a file of python_ops/lake/config, which names the state table, the secrets' prefix and the metrics."
  type        = string
  validation {
    condition     = contains(["dev", "prod"], var.environment)
    error_message = "environment is dev or prod: the others need nothing of AWS."
  }
}

variable "name" {
  description = "What names begin with. Buckets are named <name>-<environment>-<account>, which nobody else can have."
  type        = string
  default     = "lakehouse"
}

variable "region" {
  description = "Region of the lake."
  type        = string
}

variable "recovery_region" {
  description = "Region of the snapshots and of the copy of landing files."
  type        = string
  validation {
    condition     = var.recovery_region != var.region
    error_message = "recovery_region is the lake's own region: what ends the region would end the snapshots."
  }
}

variable "inputs" {
  description = "File that infra/terraform/inputs.sh writes: the secrets' names and the dashboard, as lakeops gives them."
  type        = string
}

variable "alert_addresses" {
  description = "E-mail addresses that get what `lakeops` and CloudWatch report. Each must confirm once."
  type        = list(string)
  default     = []
}

variable "emr_release" {
  description = "EMR release of the application. The engine is tested on Spark 4.1 alone; choose the release that has it."
  type        = string
}

variable "emr_image" {
  description = "Address of a container image on ECR, for the application's workers; empty for the release's own."
  type        = string
  default     = ""
}

variable "emr_most" {
  description = "Most that all jobs of the application use together. It bounds the bill."
  type        = object({ cpu = string, memory = string, disk = string })
  default     = { cpu = "32 vCPU", memory = "128 GB", disk = "400 GB" }
}

variable "network" {
  description = "Subnets and security groups of the jobs, where warehouses and databases are in a VPC; null for AWS's own network."
  type        = object({ subnets = list(string), security_groups = list(string) })
  default     = null
}

variable "old_versions_days" {
  description = "Days for which an object that was replaced or removed can be had back."
  type        = number
  default     = 30
}

variable "log_days" {
  description = "Days for which logs are kept."
  type        = number
  default     = 365
}

variable "grants" {
  description = "File that `lakeops catalog grants export` writes; empty: Lake Formation's grants are not Terraform's."
  type        = string
  default     = ""
}

variable "with_athena" {
  description = "A workgroup for readers with Athena. moto, which the tests apply to, lacks it."
  type        = bool
  default     = true
}

variable "with_lake_formation" {
  description = "Lake Formation governs the lake's bucket. moto lacks parts of it."
  type        = bool
  default     = true
}
