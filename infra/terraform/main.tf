# One environment of the lakehouse. What python_ops also knows is read from its files, so that it stands once.

locals {
  project  = "${path.module}/../.."
  settings = yamldecode(file("${local.project}/python_ops/lake/config/${var.environment}.yml"))
  policy   = yamldecode(file("${local.project}/dbt_project.yml"))
  inputs   = jsondecode(file(var.inputs))

  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  prefix    = "${var.name}-${var.environment}"
  tags      = { project = var.name, environment = var.environment }

  # The home is s3://<lake bucket>/lake, snapshots are s3://<recovery bucket>/snapshots.
  home      = "lake"
  snapshots = "snapshots"
  staging   = "staging" # files that Redshift loads

  # Seconds after which a figure of the dashboard is late: the limits of dbt's meta.
  late = {
    watermark_lag_seconds = 60 * local.policy.sources.lakehouse["+meta"].sla_minutes
    publish_lag_seconds   = 60 * local.policy.models.lakehouse.gold["+meta"].sla_minutes
    snapshot_age_seconds  = 60 * local.policy.sources.lakehouse["+meta"].sla_minutes
    failed_steps          = 0
  }
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

module "key" {
  source = "./modules/key"
  name   = local.prefix
  region = var.region
}

module "recovery_key" {
  source    = "./modules/key"
  providers = { aws = aws.recovery }
  name      = local.prefix
  region    = var.recovery_region
}

module "logs" {
  source            = "./modules/bucket"
  name              = "${local.prefix}-logs-${local.account}"
  key_arn           = null # S3's own log delivery cannot write with a customer's key
  log_bucket        = null
  takes_access_logs = true
  expire_days       = var.log_days
  old_versions_days = var.old_versions_days
}

module "recovery_logs" {
  source            = "./modules/bucket"
  providers         = { aws = aws.recovery }
  name              = "${local.prefix}-recovery-logs-${local.account}"
  key_arn           = null
  log_bucket        = null
  takes_access_logs = true
  expire_days       = var.log_days
  old_versions_days = var.old_versions_days
}

module "lake" {
  source            = "./modules/bucket"
  name              = "${local.prefix}-lake-${local.account}"
  key_arn           = module.key.arn
  log_bucket        = module.logs.name
  old_versions_days = var.old_versions_days
  passing           = "${local.staging}/"
}

module "recovery" {
  source            = "./modules/bucket"
  providers         = { aws = aws.recovery }
  name              = "${local.prefix}-recovery-${local.account}"
  key_arn           = module.recovery_key.arn
  log_bucket        = module.recovery_logs.name
  old_versions_days = 90
}

module "landing_copy" {
  source  = "./modules/landing_copy"
  name    = local.prefix
  from    = module.lake
  to      = module.recovery
  to_key  = module.recovery_key.arn
  key     = module.key.arn
  prefix  = "${local.home}/landing/"
  account = local.account
}

module "state" {
  source  = "./modules/state"
  name    = local.settings.state_table
  key_arn = module.key.arn
}

module "secrets" {
  source  = "./modules/secrets"
  prefix  = local.settings.secrets_prefix
  names   = local.inputs.secrets
  key_arn = module.key.arn
}

module "alerts" {
  source    = "./modules/alerts"
  name      = "${local.prefix}-alerts"
  key_arn   = module.key.arn
  addresses = var.alert_addresses
}

module "monitoring" {
  source    = "./modules/monitoring"
  name      = replace(local.settings.metrics_namespace, "/", "-")
  dashboard = local.inputs.dashboard
  late      = local.late
  topic_arn = module.alerts.arn
}

module "emr" {
  source     = "./modules/emr"
  name       = local.prefix
  release    = var.emr_release
  image      = var.emr_image
  most       = var.emr_most
  network    = var.network
  key_arn    = module.key.arn
  log_days   = var.log_days
  log_bucket = module.logs.name
}

module "catalog" {
  source              = "./modules/catalog"
  schemas             = ["bronze", "dlq", "silver", "gold", "ops"]
  warehouse           = "s3://${module.lake.name}/${local.home}/warehouse"
  bucket_arn          = module.lake.arn
  results             = "s3://${module.logs.name}/athena/"
  name                = local.prefix
  with_athena         = var.with_athena
  with_lake_formation = var.with_lake_formation
}

module "lake_formation" {
  source     = "./modules/lake_formation"
  count      = var.grants == "" ? 0 : 1
  grants     = jsondecode(file(var.grants))
  depends_on = [module.catalog]
}
